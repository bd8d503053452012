"""Serves Kubernetes' API servers as their KMS plugin (v2): a client of the SDK (`lnh.aio`) and of nothing else.

`keys.py` decides which key encrypts and which one a key id names, and is pure; `plugin.py` asks the cluster;
`serving.py` is the socket. `api_pb2.py` is made of `api.proto` by `make stubs`.
"""
