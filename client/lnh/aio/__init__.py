"""The SDK of the HSM cluster for asyncio: the surface of `lnh`, with `await`.

    import lnh
    import lnh.aio

    async with lnh.aio.connect("prod") as cluster:
        keyring = await cluster.keyring("payments")
        async with await keyring.login(lnh.Role.KRCO, password) as session:
            private = await session.get_key(label="ca")
            signatures = await asyncio.gather(*(private.sign(each) for each in messages))

What `lnh` has that waits for nobody (errors, enumerations, parameters) is used from there. Methods have the names,
arguments and results of `lnh`'s; what iterates there is for `async for` here. Any number of tasks use one connection,
in the event loop that first used it: what they ask at one moment travels together. No thread runs for it. Long inputs
are read, and files written, in the loop, a part at a time.

A call that is cancelled leaves the connection as good as it was. A write may have been done all the same: then the
CancelledError that the call raises has OutcomeUnknown for its `__cause__`. (`asyncio.gather` tells of a cancelled task
by a CancelledError of its own, which has no cause.)

All but `net.pool`, `net.mutex` and `objects.listings` is made of the modules of `lnh` of the same names.
"""

from lnh.aio.cluster import Cluster, connect
from lnh.aio.keyrings import Keyring, KeyringSession
from lnh.aio.objects.keys import Certificate, DataObject, Key, PrivateKey, PublicKey, SecretKey, StoredObject
from lnh.aio.objects.listings import Listing
from lnh.aio.sessions import Session

__all__ = [
    "Certificate",
    "Cluster",
    "DataObject",
    "Key",
    "Keyring",
    "KeyringSession",
    "Listing",
    "PrivateKey",
    "PublicKey",
    "SecretKey",
    "Session",
    "StoredObject",
    "connect",
]
