"""Leases: which workers may use their caches, until when, and how caches are invalidated. Pure but for one file."""
