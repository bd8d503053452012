"""The SQLite database of a store, its snapshots, and what can be wrong with a disk."""
