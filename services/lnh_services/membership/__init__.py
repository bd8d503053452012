"""The view of the cluster, and the procedures of several members together: join, promote, remove."""
