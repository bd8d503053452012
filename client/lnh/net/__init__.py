"""Brings requests to the cluster and their answers back, whatever fails on the way."""
