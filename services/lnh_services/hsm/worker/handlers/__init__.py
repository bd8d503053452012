"""The handlers: carry out each operation, one file a group of operations."""
