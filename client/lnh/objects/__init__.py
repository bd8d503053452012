"""Keys and other objects: made, found and used in a session."""
