"""Looks at an etcd before a cluster relies on it, and changes nothing in it: `probe.py` looks, `judge.py` judges."""
