"""A cluster on this machine: `lnh up`, `lnh down`, `lnh demo`."""
