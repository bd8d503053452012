"""Leases: which workers may use their caches, until when, and how they are told to forget. Pure but for one file."""
