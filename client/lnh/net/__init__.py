"""Getting a request to the cluster and its answer back, whatever fails on the way."""
