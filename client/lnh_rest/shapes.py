"""The JSON of requests and answers that are the service's own; views of the cluster are the SDK's.

Data is base64. Handles, ids and the bytes of attributes are hexadecimal, as in the command line's `--json`.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, TypeAlias

import msgspec

from lnh_common import limits
from lnh_common.messages.admin import (
    ClientView,
    GroupView,
    KeyringView,
    MemberView,
    NewLabel,
    NewName,
    RoleView,
    UserView,
)
from lnh_common.messages.objects import Index
from lnh_common.pkcs11.attributes import ObjectClass
from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Mechanism, Use
from lnh_rest import attributes
from lnh_rest.base import Body, Secretive
from lnh_rest.schemas import one_of


def _serving(*uses: Use) -> msgspec.Meta:
    return one_of(each.name for each in Mechanism if MECHANISM_RULES[each].uses & set(uses))


def _made_by(use: Use) -> msgspec.Meta:
    return one_of(kind.name for kind, which in GENERATORS.items() if use in MECHANISM_RULES[which].uses)


Password: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.PASSWORD_CHARACTERS[1])]
PersonName: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.NAME_CHARACTERS)]
Label: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.LABEL_BYTES)]
Data: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.REQUEST_BYTES)]
Ciphertext: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.CIPHERTEXT_BYTES + limits.AAD_BYTES)]
Signature: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.SIGNATURE_BYTES)]
Handle: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Hex: TypeAlias = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$", max_length=2 * limits.ID_BYTES)]
Template: TypeAlias = Annotated[dict[str, Any], attributes.SCHEMA]
Parameters: TypeAlias = Annotated[dict[str, Any], attributes.PARAMETERS]
Total: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=limits.OBJECTS_PER_GENERATE)]
Bits: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_ITEMS)]
Cursor: TypeAlias = Annotated[str, msgspec.Meta(max_length=4 * limits.LABEL_BYTES)]


class Nothing(Body):
    """A query without fields."""


class PageQuery(Body):
    """Ask for a page.

    Args:
        cursor: `next` of the page before; empty for the first.
        limit: of items.
    """

    cursor: Cursor = ""
    limit: Limit = limits.REST_PAGE


class Page(Body, kw_only=True):
    """Answer with a page.

    Args:
        total: of items on all pages; none where it would take reading them all.
        next: the cursor of the next page; empty on the last.
        current: whether the member that listed it was in step, so that it is all there is.
        whole_until: where it was not: UTC milliseconds until when it knows all; 0 where it cannot tell.
        skipped: ids of what is there and does not open at that member.
    """

    total: int | None
    next: str
    current: bool = True
    whole_until: int = 0
    skipped: tuple[str, ...] = ()


# Sessions


class UserLogin(Secretive, tag_field="as", tag="user"):
    """Log in as an appliance user, as the PO (without a user), or as both at once.

    Args:
        user: its name.
        po_password: of the cluster's PO, where it is there too.
    """

    user: PersonName = ""
    password: Password = ""
    po_password: Password = ""


class KeyringRole(enum.Enum):
    """A role of a keyring."""

    KRSO = "krso"
    KRCO = "krco"


class KeyringLogin(Secretive, tag_field="as", tag="keyring"):
    """Log in as a keyring's KRSO or KRCO."""

    keyring: Label
    role: KeyringRole
    password: Password


class SessionView(Body):
    """Describe a session.

    Args:
        holder: whose it is.
        keyring: whose objects it is about; empty for an appliance user's.
        ends: UTC seconds. It ends sooner when it is not used for as long as the cluster's tokens live.
    """

    holder: str
    keyring: str
    ends: int


class SessionOpened(Secretive):
    """Answer a login with the session's bearer token, which is shown this once.

    Args:
        token: for the header `Authorization: Bearer TOKEN`.
        holder, keyring, ends: as in SessionView.
    """

    token: str
    holder: str
    keyring: str
    ends: int


class Health(Body):
    """Say that the service serves."""

    serving: bool
    product: str


class ProblemKind(Body):
    """Describe a kind of error."""

    error: str
    code: int
    ckr: str
    title: str
    status: int
    advice: str


class ProblemKinds(Body):
    """List every kind of error."""

    problems: tuple[ProblemKind, ...]


# Keyrings and members


class NewKeyrings(Body):
    """Create keyrings: one of this label, or several of it and a running number."""

    label: NewLabel
    total: Annotated[int, msgspec.Meta(ge=1, le=limits.KEYRINGS_PER_CREATE)] = 1
    index: Index = 1


class KeyringPage(Page):
    """Answer with a page of keyrings, by id."""

    items: tuple[KeyringView, ...]


class KeyringsMade(Body):
    """Answer with new keyrings."""

    keyrings: tuple[KeyringView, ...]


class MemberPage(Page):
    """Answer with a page of members, by name."""

    items: tuple[MemberView, ...]


class GroupPage(Page):
    """Answer with a page of affinity groups, by label."""

    items: tuple[GroupView, ...]


class NewGroup(Body):
    """Create an affinity group."""

    label: NewName


class UserPage(Page):
    """Answer with a page of appliance users, by name."""

    items: tuple[UserView, ...]


class RolePage(Page):
    """Answer with a page of appliance roles, by name."""

    items: tuple[RoleView, ...]


class ClientPage(Page):
    """Answer with a page of registered clients, by name."""

    items: tuple[ClientView, ...]


# Objects


class ObjectView(Body):
    """Describe an object: no sensitive value is among its attributes.

    Args:
        version: counts its changes; the ETag.
        attributes: all that it has, by name.
    """

    handle: Handle
    version: int
    label: str
    attributes: dict[str, Any]


class ObjectQuery(PageQuery):
    """Ask for the objects with these attributes.

    Args:
        object_class: the attribute CLASS.
        id: hexadecimal.
    """

    label: Label | None = None
    id: Hex | None = None
    object_class: Annotated[str, one_of(ObjectClass.__members__)] | None = None
    key_type: Annotated[str, one_of(kind.name for kind in GENERATORS)] | None = None


class ObjectPage(Page):
    """Answer with a page of objects, by handle."""

    items: tuple[ObjectView, ...]


class NewKeys(Body):
    """Generate secret keys of one kind, all or none.

    Args:
        bits: of AES 128, 192 or 256, of GENERIC_SECRET 128 to 4096; none takes 256.
        attributes: by name.
        total: how many; several have the label and a running number from `index`.
    """

    key_type: Annotated[str, _made_by(Use.GENERATE)]
    bits: Bits | None = None
    attributes: Template = {}
    total: Total = 1
    index: Index = 1


class KeysMade(Body):
    """Answer with new secret keys."""

    objects: tuple[ObjectView, ...]


class NewKeyPair(Body):
    """Generate a key pair.

    Args:
        bits: of RSA; none takes 3072.
        curve: of EC, EC_EDWARDS and EC_MONTGOMERY, such as P-256.
        parameter_set: of ML_DSA and ML_KEM, such as ML-DSA-65.
        attributes: each goes to the half that has it, or to both.
        public, private: of one half.
    """

    key_type: Annotated[str, _made_by(Use.GENERATE_PAIR)]
    bits: Bits | None = None
    curve: str | None = None
    parameter_set: str | None = None
    attributes: Template = {}
    public: Template = {}
    private: Template = {}


class KeyPairMade(Body):
    """Answer with both halves of a new key pair."""

    public: ObjectView
    private: ObjectView


# Cryptography


class Sign(Secretive):
    """Sign data, up to 1 MiB.

    Args:
        mechanism: none takes the key type's.
        parameters: of the mechanism; bytes are base64.
        der: an ECDSA signature as X.509 has it (RFC 3279, 2.2.3), not `r || s`.
    """

    data: Data
    mechanism: Annotated[str, _serving(Use.SIGN)] | None = None
    parameters: Parameters = {}
    der: bool = False


class Signed(Body):
    """Answer with a signature, or the tag of a secret key."""

    signature: bytes


class Verify(Secretive):
    """Verify a signature over data; the other fields are as of `Sign`."""

    data: Data
    signature: Signature
    mechanism: Annotated[str, _serving(Use.VERIFY)] | None = None
    parameters: Parameters = {}
    der: bool = False


class Verified(Body):
    """Answer whether the signature was made over the data by this key."""

    valid: bool


class Encrypt(Secretive):
    """Encrypt data, up to 1 MiB; the HSM draws the IV."""

    data: Data
    mechanism: Annotated[str, _serving(Use.ENCRYPT)] | None = None
    parameters: Parameters = {}


class Encrypted(Body):
    """Answer with `iv || ciphertext || tag`, which decrypts as it is."""

    ciphertext: bytes


class Decrypt(Secretive):
    """Decrypt what encrypting answered; with an IV among the parameters, the ciphertext is the rest."""

    ciphertext: Ciphertext
    mechanism: Annotated[str, _serving(Use.DECRYPT)] | None = None
    parameters: Parameters = {}


class Decrypted(Secretive):
    """Answer with what was encrypted."""

    data: bytes


class RandomLength(Body):
    """Ask for random bytes of the HSM."""

    length: Annotated[int, msgspec.Meta(ge=1, le=limits.REQUEST_BYTES)]


class RandomData(Secretive):
    """Answer with random bytes."""

    data: bytes
