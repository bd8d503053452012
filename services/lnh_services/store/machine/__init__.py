"""The state machine: what applying an entry does, the same on every member. Pure."""
