"""The replicated, sealed state of the cluster: its log, its disk, its leases."""
