"""The state machine: applies an entry, the same on every member. Pure."""
