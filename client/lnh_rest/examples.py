"""An example of each request and answer, for the document; a test reads each as the service does."""

from __future__ import annotations

from typing import Any, Final

from lnh_common.messages.admin import (
    ClientView,
    ClusterView,
    GroupView,
    KeyringView,
    MemberView,
    RoleView,
    ServiceView,
    StatusView,
    UserView,
)
from lnh_rest import shapes
from lnh_rest.admin_examples import ADMINISTRATION
from lnh_rest.key_examples import HANDLE, KEY, KEYS, PRIVATE, PUBLIC
from lnh_rest.problems import Problem

_ID: Final = bytes.fromhex("5f0c7b7d0e8a3b5c6d7e8f9a0b019a4f")
_KEYRING: Final = KeyringView(id=_ID, label="payments", roles=("krso", "krco"), objects=3)
_MEMBER: Final = MemberView(
    id=_ID,
    name="A",
    address="hsm1:4400",
    primary=True,
    state="read-write",
    group="local",
    product="0.2.0",
    role="primary",
    last_heard=1_796_000_000,
)
_CLUSTER: Final = ClusterView(
    id=_ID, label="prod", fingerprint="SHA256:q83vEjRWeJo", members=(_MEMBER,), keyrings=1, clients=1
)
_DATA: Final = b"what is signed"

_ALL: Final = (
    Problem(
        type="/v1/problems/ObjectUnknown",
        title="No object has this handle, or these attributes.",
        status=404,
        detail=f"no object {HANDLE}",
        instance="urn:uuid:6a0d3c8e-2f6b-4f5e-9d0a-0c1b2a3d4e5f",
        error="ObjectUnknown",
        code=41,
        ckr="CKR_OBJECTHANDLE_INVALID",
        advice="look for the object again: lnh key list",
    ),
    shapes.Health(serving=True, product="0.2.0"),
    shapes.ProblemKind(
        error="Busy",
        code=6,
        ckr="CKR_DEVICE_MEMORY",
        title="The member has as much under way as it takes; nothing was done.",
        status=503,
        advice="try again in a moment, or send fewer requests at once",
    ),
    shapes.ProblemKinds(problems=()),
    shapes.UserLogin(user="admin", password="a password", po_password="the PO's password"),
    shapes.KeyringLogin(keyring="payments", role=shapes.KeyringRole.KRCO, password="a password"),
    shapes.SessionOpened(token="lnh_...", holder="krco of payments", keyring="payments", ends=1_796_028_800),
    shapes.SessionView(holder="krco of payments", keyring="payments", ends=1_796_028_800),
    StatusView(cluster=_CLUSTER, services=(ServiceView(name="store", state="ready", detail={"items": 12}),)),
    _CLUSTER,
    _MEMBER,
    _KEYRING,
    shapes.MemberPage(items=(_MEMBER,), total=1, next=""),
    shapes.KeyringPage(items=(_KEYRING,), total=1, next=""),
    shapes.GroupPage(items=(GroupView(label="local", members=("A",)),), total=1, next=""),
    shapes.NewGroup(label="east"),
    shapes.UserPage(items=(UserView(name="admin", role="admin"),), total=1, next=""),
    shapes.RolePage(items=(RoleView(name="monitor", permissions=("view",), custom=False),), total=1, next=""),
    shapes.ClientPage(
        items=(
            ClientView(name="web-1", id=_ID, registered_at=1_796_000_000, revoked=False, monitor="", keyrings=(_ID,)),
        ),
        total=1,
        next="",
    ),
    shapes.NewKeyrings(label="payments-", total=20),
    shapes.KeyringsMade(keyrings=(KeyringView(id=_ID, label="payments-1"),)),
    KEY,
    shapes.ObjectPage(items=(KEY,), total=1, next=""),
    shapes.NewKeys(key_type="AES", bits=256, attributes={"label": "backup"}),
    shapes.KeysMade(objects=(KEY,)),
    shapes.NewKeyPair(key_type="EC", curve="P-256", attributes={"label": "ca"}),
    shapes.KeyPairMade(public=PUBLIC, private=PRIVATE),
    shapes.Sign(data=_DATA, mechanism="ECDSA_SHA256", der=True),
    shapes.Signed(signature=bytes(64)),
    shapes.Verify(data=_DATA, signature=bytes(64)),
    shapes.Verified(valid=True),
    shapes.Encrypt(data=_DATA, mechanism="AES_GCM", parameters={"aad": "aW52b2ljZSA3"}),
    shapes.Encrypted(ciphertext=bytes(42)),
    shapes.Decrypt(ciphertext=bytes(42)),
    shapes.Decrypted(data=_DATA),
    shapes.RandomLength(length=32),
    shapes.RandomData(data=bytes(32)),
    *ADMINISTRATION,
    *KEYS,
)
EXAMPLES: Final[dict[Any, Any]] = {type(each): each for each in _ALL}
