"""Getting in: hello, registration, login, renewal, logout, and changing one's own password."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Message, Seal, operation
from lnh_common.text import NAME

Password = Annotated[str, msgspec.Meta(max_length=limits.PASSWORD_CHARACTERS[1])]
PersonName = Annotated[str, msgspec.Meta(max_length=limits.NAME_CHARACTERS, pattern=NAME)]
Id16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Role(str, enum.Enum):
    """The kind of a credential; an appliance user's own role (admin, operator, monitor, custom) is in its record."""

    USER = "user"
    PO = "po"
    KRSO = "krso"
    KRCO = "krco"

    @property
    def of_keyring(self) -> bool:
        """Tell whether the role belongs to one keyring."""
        return self in (Role.KRSO, Role.KRCO)


class Welcome(Message):
    """Answer `hello` with an encoded `channel.Statement`, the identity that signed it, and the product's version."""

    statement: bytes
    signature: bytes
    identity: bytes
    product: str


class Credential(Confidential):
    """One credential.

    Args:
        name: of the appliance user; empty for the PO.
        keyring: of the KRSO or KRCO; empty otherwise.
    """

    role: Role
    password: Password
    name: PersonName = ""
    keyring: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Login(Confidential):
    """Open a session with up to two credentials (an admin and the PO), or with none as the registered client itself."""

    credentials: Annotated[tuple[Credential, ...], msgspec.Meta(max_length=2)] = ()


class LoggedIn(Confidential):
    """Answer with a session's token; `expires` is of this token, `ends` of the session, both in UTC seconds."""

    token: bytes
    session: bytes
    expires: int
    ends: int


class Logout(Message):
    """End this session; `everywhere` ends every session of its credential."""

    everywhere: bool = False


class ChangePassword(Confidential):
    """Change a holder's own password; the KRSO's first change makes the keyring's key."""

    credential: Credential
    new: Password


class Register(Confidential):
    """Ask to register a client machine.

    Args:
        name: of the client, unique in the cluster.
        curve_key, sign_key: its raw public keys (CURVE25519, Ed25519).
        monitor: the appliance user whose sight this machine has, or empty.
        administrator: the credential of the admin who lets it in.
    """

    administrator: Credential
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS, pattern=NAME)]
    curve_key: Key32
    sign_key: Key32
    monitor: PersonName = ""


class Registered(Message):
    """Answer with the new client's id."""

    client: bytes


class EndpointView(Message):
    """Describe a member's client port, as another way to the cluster.

    Args:
        address: host:port.
        key: its CURVE key.
        group: the member's affinity group.
        state: the member's, as the view names it (`membership.MemberState`).
    """

    address: str
    key: Key32
    group: str
    state: str


class Endpoints(Message):
    """Answer with the members that serve the cluster's clients, this one among them."""

    endpoints: tuple[EndpointView, ...] = msgspec.field(name="ways")


HELLO: Final = operation("hello", Empty, Welcome)
# A sign of life: nobody serves it, so a balancer refuses it at once and asks no worker, and that is the sign.
PROBE: Final = operation("probe", Empty, Empty)
REGISTER: Final = operation("client.register", Register, Registered, Seal.CREDENTIAL, Effect.WRITE)
LOGIN: Final = operation("session.login", Login, LoggedIn, Seal.CREDENTIAL)
RENEW: Final = operation("session.renew", Empty, LoggedIn, Seal.SESSION)
ENDPOINTS: Final = operation("cluster.ways", Empty, Endpoints, Seal.SESSION)
LOGOUT: Final = operation("session.logout", Logout, Empty, Seal.SESSION, Effect.WRITE)
CHANGE_PASSWORD: Final = operation("role.password", ChangePassword, Empty, Seal.CREDENTIAL, Effect.WRITE)
