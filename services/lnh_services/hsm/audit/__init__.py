"""The audit trail, its anchor in the cluster's log, and refusals that are counted."""
