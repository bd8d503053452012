"""Serves a cluster over HTTPS to clients that know REST: a client of the SDK (`lnh.aio`) and of nothing else.

`table.py` has one row for each route. The service (`app.py`), the OpenAPI document (`openapi.py`) and docs/rest.md are
made of that table. What decides is pure: `logins.py`, `repeats.py`, `admission.py`, `paging.py`, `decoding.py`.
"""
