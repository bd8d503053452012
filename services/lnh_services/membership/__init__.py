"""The view of the cluster, and what several members do together: join, promote, remove."""
