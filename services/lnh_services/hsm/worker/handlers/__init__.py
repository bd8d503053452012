"""What each operation does, one file a group of operations."""
