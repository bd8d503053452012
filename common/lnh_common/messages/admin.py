"""What appliance users, the PO and the KRSO do to the cluster, through any member."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Listing, Message, Seal, operation
from lnh_common.messages.session import Id16, Password, PersonName
from lnh_common.messages.store import Divergent, GroupLabel
from lnh_common.text import NAME

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS)]
# Of what is made or renamed. What is asked for may be called anything: an older version let more in.
NewName = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS, pattern=NAME)]
NewLabel = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.LABEL_BYTES, pattern=NAME)]


class CreateKeyrings(Message):
    """`total` keyrings: `label` itself for one, else label plus running number from `index`."""

    label: NewLabel
    total: Annotated[int, msgspec.Meta(ge=1)] = 1
    index: Annotated[int, msgspec.Meta(ge=0)] = 1


class KeyringView(Listing, kw_only=True):
    """`roles` names the credentials that are set: krso-first (must change), krso, krco."""

    id: bytes
    label: str
    roles: tuple[str, ...] = ()
    objects: int = 0
    policy: dict[str, Any] = {}
    clients: tuple[str, ...] = ()


class Keyrings(Listing, kw_only=True):
    keyrings: tuple[KeyringView, ...]
    more: bool = False
    last: bytes = b""  # where the next page begins, whether or not it was visible

    def is_bare(self) -> bool:
        return not self.keyrings and not self.more


class ListKeyrings(Message):
    """Those this session may see; `label` asks for one."""

    label: Annotated[str, msgspec.Meta(max_length=limits.LABEL_BYTES)] = ""
    after: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class KeyringRef(Message):
    keyring: Id16


class InitRole(Confidential):
    """The first KRSO credential of a keyring: good for nothing but being changed."""

    keyring: Id16
    password: Password


class SetRole(Confidential):
    """The KRSO sets, or resets, the KRCO of its keyring (the message's route)."""

    password: Password


class Assignment(Message):
    client: Name
    keyring: Id16


class ClientRef(Message):
    client: Name


class ClientView(Message):
    name: str
    id: bytes
    registered_at: int
    revoked: bool
    monitor: str
    keyrings: tuple[bytes, ...]


class Clients(Listing, kw_only=True):
    clients: tuple[ClientView, ...]

    def is_bare(self) -> bool:
        return not self.clients


class AddUser(Confidential):
    name: NewName
    role: Name
    password: Password


class UserRef(Message):
    name: Name


class UserView(Message):
    name: str
    role: str


class Users(Listing, kw_only=True):
    users: tuple[UserView, ...]

    def is_bare(self) -> bool:
        return not self.users


class PolicyChange(Message):
    """Fields of the policy to change; an empty map changes nothing and shows it."""

    changes: dict[str, Any] = {}


class PolicyView(Listing, kw_only=True):
    policy: dict[str, Any]


class ClusterView(Listing, kw_only=True):
    id: bytes
    label: str
    fingerprint: str
    members: tuple[MemberView, ...]
    keyrings: int
    clients: int


class MemberView(Message):
    id: bytes
    name: str
    address: str
    primary: bool
    state: str
    group: PersonName
    product: str
    role: str = ""
    last_heard: int = 0


class InvitationView(Confidential):
    """A new invitation.

    Args:
        text: to be handed to whoever sets up the new member, and given to `lnh cluster join` there.
        expires: UTC seconds.
        identity: fingerprint of the HSM that made it.
    """

    text: str
    expires: int
    identity: str


class ChangeMember(Message):
    """Give a member another name or address; what is None stays."""

    member: Id16
    name: NewName | None = None
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None


class MemberRef(Message):
    member: Id16


class GroupRef(Message):
    label: GroupLabel


class GroupView(Message):
    """An affinity group; `members` are names."""

    label: str
    members: tuple[str, ...]


class Groups(Listing, kw_only=True):
    groups: tuple[GroupView, ...]


class MoveMember(Message):
    """Move a member to another affinity group."""

    member: Id16
    group: GroupLabel


class DeleteMember(Message):
    """Remove a member that is lost for good; with `force` although others that should agree are missing too."""

    member: Id16
    force: bool = False


class LookAtDivergent(Message):
    """With `seen` an administrator has looked, and the member is DIVERGED no longer."""

    member: Id16
    seen: bool = False


class Remark(Message):
    """What one should know of something that was done; mostly nothing."""

    remark: str = ""


class ServiceView(Message):
    """One service of the member that was asked, as its `status` operation tells."""

    name: str
    state: str
    detail: dict[str, Any]


class StatusView(Listing, kw_only=True):
    cluster: ClusterView
    services: tuple[ServiceView, ...]


_S = Seal.SESSION
_W = Effect.WRITE
KEYRING_CREATE: Final = operation("keyring.create", CreateKeyrings, Keyrings, _S, _W)
KEYRING_LIST: Final = operation("keyring.list", ListKeyrings, Keyrings, _S)
KEYRING_SHOW: Final = operation("keyring.show", KeyringRef, KeyringView, _S)
KEYRING_DELETE: Final = operation("keyring.delete", KeyringRef, Empty, _S, _W)
KEYRING_POLICY: Final = operation("keyring.policy", PolicyChange, PolicyView, _S, _W)
ROLE_INIT: Final = operation("role.init", InitRole, Empty, _S, _W)
ROLE_SET: Final = operation("role.set", SetRole, Empty, _S, _W)
CLIENT_LIST: Final = operation("client.list", Empty, Clients, _S)
CLIENT_REVOKE: Final = operation("client.revoke", ClientRef, Empty, _S, _W)
CLIENT_ASSIGN: Final = operation("client.assign", Assignment, Empty, _S, _W)
CLIENT_UNASSIGN: Final = operation("client.unassign", Assignment, Empty, _S, _W)
USER_ADD: Final = operation("user.add", AddUser, Empty, _S, _W)
USER_LIST: Final = operation("user.list", Empty, Users, _S)
USER_DELETE: Final = operation("user.delete", UserRef, Empty, _S, _W)
CLUSTER_SHOW: Final = operation("cluster.show", Empty, ClusterView, _S)
CLUSTER_POLICY: Final = operation("cluster.policy", PolicyChange, PolicyView, _S, _W)
CLUSTER_LEAVE: Final = operation("cluster.leave", MemberRef, Remark, _S, _W)
CLUSTER_DELETE: Final = operation("cluster.delete", MemberRef, Remark, _S, _W)
MEMBER_INVITE: Final = operation("member.invite", Empty, InvitationView, _S, _W)
MEMBER_SET: Final = operation("member.set", ChangeMember, Remark, _S, _W)
MEMBER_PROMOTE: Final = operation("member.promote", MemberRef, Remark, _S, _W)
MEMBER_REMOVE: Final = operation("member.remove", MemberRef, Remark, _S, _W)
MEMBER_DELETE: Final = operation("member.delete", DeleteMember, Remark, _S, _W)
MEMBER_DIVERGENT: Final = operation("member.divergent-entries", LookAtDivergent, Divergent, _S, _W)
MEMBER_MOVE: Final = operation("member.move", MoveMember, Remark, _S, _W)
GROUP_CREATE: Final = operation("group.create", GroupRef, Remark, _S, _W)
GROUP_LIST: Final = operation("group.list", Empty, Groups, _S)
GROUP_DELETE: Final = operation("group.delete", GroupRef, Remark, _S, _W)
STATUS: Final = operation("status.show", Empty, StatusView, _S)
