"""The client of etcd: the way of the requests of `store/etcd/requests.py` there and back; and the check of an etcd.

`encoding.py` puts requests into etcd's messages (`rpc.proto`), `failures.py` says of each failure whether the request
certainly did nothing; both are pure. `client.py` is the way there, over several endpoints. `check/` looks at an etcd
before it is relied on. Nothing else imports grpc.
"""
