"""A worker: the pure core, what it knows and for how long, and the loop around it."""
