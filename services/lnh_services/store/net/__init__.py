"""Store to store: connections, and snapshots on their way."""
