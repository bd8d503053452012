"""Objects: how they are stored, made, and what their attributes and the policy allow."""
