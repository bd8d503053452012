"""Messages by which appliance users, the PO and the KRSO administer the cluster, through any member."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Listing, Message, Seal, operation
from lnh_common.messages.session import Id16, Password, PersonName, Role
from lnh_common.messages.store import Divergent, GroupLabel
from lnh_common.text import NAME

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS)]
# Of what is made or renamed. What is asked for may be called anything: an older version let more in.
NewName = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS, pattern=NAME)]
NewLabel = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.LABEL_BYTES, pattern=NAME)]


class Permission(str, enum.Enum):
    """A permission that an appliance role may hold; docs/permissions.md lists what each allows."""

    VIEW = "view"
    USERS = "users"
    CLIENTS = "clients"
    MEMBERS = "members"
    KEYRINGS = "keyrings"
    CLUSTER = "cluster"
    GROUPS = "groups"
    BACKUP = "backup"
    BACKUP_DELETE = "backup-delete"
    AUDIT_EXPORT = "audit-export"
    APPROVE = "approve"


class CreateKeyrings(Message):
    """Ask for `total` keyrings: one is named `label`, several are named `label` plus a running number from `index`."""

    label: NewLabel
    total: Annotated[int, msgspec.Meta(ge=1)] = 1
    index: Annotated[int, msgspec.Meta(ge=0)] = 1


class KeyringView(Listing, kw_only=True):
    """Describe one keyring; `roles` names the credentials that are set: krso-first (must change), krso, krco."""

    id: bytes
    label: str
    roles: tuple[str, ...] = ()
    objects: int = 0
    policy: dict[str, Any] = {}
    clients: tuple[str, ...] = ()


class Keyrings(Listing, kw_only=True):
    """Answer with one page of keyrings; `more` says that another page follows."""

    keyrings: tuple[KeyringView, ...]
    more: bool = False
    last: bytes = b""  # where the next page begins, whether or not it was visible

    def is_bare(self) -> bool:
        """Tell whether the page is empty and the last one."""
        return not self.keyrings and not self.more


class ListKeyrings(Message):
    """Ask for the keyrings that this session may see, behind the id `after`; `label` asks for that one alone."""

    label: Annotated[str, msgspec.Meta(max_length=limits.LABEL_BYTES)] = ""
    after: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class KeyringRef(Message):
    """Name the keyring that an operation is about, by its id."""

    keyring: Id16


class RekeyState(Listing, kw_only=True):
    """Describe how far a keyring is with its newest key.

    Args:
        generation: of that key, from 1.
        open: some objects may still be sealed under the key of before, and it still opens them.
        done: objects that were looked at since; of so many `objects` that the keyring holds.
        begun_at: UTC seconds; 0 for a keyring that has its first key.
    """

    generation: int
    open: bool
    done: int
    objects: int
    begun_at: int

    def is_bare(self) -> bool:
        """Tell whether it says that nothing is under way."""
        return not self.open


class InitRole(Confidential):
    """Set the first KRSO credential of a keyring; its password must be changed before it is good for anything else."""

    keyring: Id16
    password: Password


class SetRole(Confidential):
    """Set or reset the KRCO credential of the KRSO's own keyring, which is the message's route."""

    password: Password


class Assignment(Message):
    """Name a client and a keyring that is to be assigned to it, or taken from it."""

    client: Name
    keyring: Id16


class ClientRef(Message):
    """Name the registered client that an operation is about."""

    client: Name


class ClientView(Message):
    """Describe one registered client.

    Args:
        registered_at: UTC seconds.
        monitor: the appliance user whose sight the client's machine has, or empty.
        keyrings: ids of the keyrings that are assigned to it.
    """

    name: str
    id: bytes
    registered_at: int
    revoked: bool
    monitor: str
    keyrings: tuple[bytes, ...]


class Clients(Listing, kw_only=True):
    """Answer with every registered client, in the order of their names."""

    clients: tuple[ClientView, ...]

    def is_bare(self) -> bool:
        """Tell whether the list is empty."""
        return not self.clients


class AddUser(Confidential):
    """Add an appliance user with a role (admin, operator, monitor or a custom one) and a first password."""

    name: NewName
    role: Name
    password: Password


class UserRef(Message):
    """Name the appliance user that an operation is about."""

    name: Name


class ResetUser(Confidential):
    """Give another appliance user a new password, which is good for nothing but being changed by that user."""

    name: Name
    password: Password


class Unlock(Message):
    """Name whose failed logins are to be forgotten: an appliance user, the PO, or a role of a keyring."""

    role: Role
    name: PersonName = ""
    keyring: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class RoleLock(Message, omit_defaults=True):
    """Describe who may not log in as a role of a keyring, whatever its password, and until when.

    Args:
        client: the name of the only one that may not, or words for it; empty: nobody may, but clients that did lately.
        until: UTC seconds; 0: nobody may, until somebody unlocks it, by policy `lock_after`.
    """

    role: Role
    client: str = ""
    until: int = 0


class RoleLocks(Listing, kw_only=True):
    """Answer with the locks of a keyring's roles; there are none where whoever is asked for a password may try."""

    locks: tuple[RoleLock, ...]


class UserView(Message, omit_defaults=True):
    """Describe one appliance user; `locked` until somebody unlocks it, by policy `lock_after`."""

    name: str
    role: str
    locked: bool = False


class Users(Listing, kw_only=True):
    """Answer with every appliance user, in the order of their names."""

    users: tuple[UserView, ...]

    def is_bare(self) -> bool:
        """Tell whether the list is empty."""
        return not self.users


class CreateRole(Message):
    """Make a custom appliance role: a name for permissions that its users hold."""

    name: NewName
    permissions: Annotated[tuple[Permission, ...], msgspec.Meta(min_length=1, max_length=len(Permission))]


class RoleRef(Message):
    """Name the custom appliance role that an operation is about."""

    name: Name


class RoleView(Message):
    """Describe one appliance role; `permissions` may name some that only a later version knows."""

    name: str
    permissions: tuple[str, ...]
    custom: bool


class Roles(Listing, kw_only=True):
    """Answer with every appliance role: the built-in ones, then the custom ones in the order of their names."""

    roles: tuple[RoleView, ...]


class PolicyChange(Message):
    """Change these fields of a policy; an empty map changes nothing and asks for the policy."""

    changes: dict[str, Any] = {}


class PolicyView(Listing, kw_only=True):
    """Answer with a policy, each field by its name, after the change that was asked for."""

    policy: dict[str, Any]


class Decision(str, enum.Enum):
    """The state of a request that waits, or waited, for a second person."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"


class ApprovalRef(Message):
    """Name the request for approval that an operation is about, by its id."""

    approval: Id16


class ApprovalView(Message):
    """Describe a request that waits, or waited, for a second person.

    Args:
        operation: as docs/permissions.md names it.
        about: the names that its ids had when it was made, for people.
        arguments: all that must be the same when it is carried out; what is secret is no part of it.
        requesters, deciders: appliance users.
        requested_at, expires, decided_at: UTC seconds; 0 while nobody decided.
    """

    id: bytes
    operation: str
    about: str
    arguments: dict[str, Any]
    requesters: tuple[str, ...]
    requested_at: int
    expires: int
    decision: Decision
    deciders: tuple[str, ...] = ()
    decided_at: int = 0


class Approvals(Listing, kw_only=True):
    """Answer with every request for approval that is known still, the oldest first."""

    approvals: tuple[ApprovalView, ...]

    def is_bare(self) -> bool:
        """Tell whether the list is empty."""
        return not self.approvals


class ClusterView(Listing, kw_only=True):
    """Describe the cluster: its identity's fingerprint, its members, and how many keyrings and clients it has."""

    id: bytes
    label: str
    fingerprint: str
    members: tuple[MemberView, ...]
    keyrings: int
    clients: int


class VersionView(Listing, kw_only=True):
    """Answer with the cluster's version, and with what it can be raised to.

    Args:
        product: MAJOR.MINOR: nothing is written that a member of this version does not read.
        newest: the version of the member that answers, likewise.
        waits_for: the names of members that are not in step, or of an older version than that.
    """

    product: str
    newest: str
    waits_for: tuple[str, ...]


class MemberView(Message):
    """Describe one member, as the member that answers sees it.

    Args:
        state: as `membership.MemberState` has it.
        product: the member's version; empty when it was never heard.
        last_heard: UTC seconds; 0 when it was never heard.
    """

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
    """Answer with a new invitation.

    Args:
        text: is handed to the operator of the new member, and given to `lnh cluster join` there.
        expires: UTC seconds.
        identity: fingerprint of the HSM that made it.
    """

    text: str
    expires: int
    identity: str


class ChangeMember(Message):
    """Give a member another name or address; a field that is None stays as it is."""

    member: Id16
    name: NewName | None = None
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None


class MemberRef(Message):
    """Name the member that an operation is about, by its id."""

    member: Id16


class GroupRef(Message):
    """Name the affinity group that an operation is about."""

    label: GroupLabel


class NewGroup(Message):
    """Ask for an affinity group with this label."""

    label: NewName


class GroupView(Message):
    """Describe an affinity group; `members` are names."""

    label: str
    members: tuple[str, ...]


class Groups(Listing, kw_only=True):
    """Answer with every affinity group."""

    groups: tuple[GroupView, ...]


class MoveMember(Message):
    """Move a member to another affinity group."""

    member: Id16
    group: GroupLabel


class DeleteMember(Message):
    """Remove a member that is lost for good; `force` goes on although other members that should agree are missing."""

    member: Id16
    force: bool = False


class LookAtDivergent(Message):
    """Ask for the entries that a member had to drop; `seen` says that an administrator looked, and ends DIVERGED."""

    member: Id16
    seen: bool = False


class Remark(Message):
    """Answer that an act was done; `remark` says what its caller should know about it, and is mostly empty."""

    remark: str = ""


class ServiceView(Message):
    """Describe one service of the member that was asked, as the service's own `status` operation tells."""

    name: str
    state: str
    detail: dict[str, Any]


class StatusView(Listing, kw_only=True):
    """Answer with the cluster, and with the services of the member that was asked."""

    cluster: ClusterView
    services: tuple[ServiceView, ...]


_S = Seal.SESSION
_W = Effect.WRITE
KEYRING_CREATE: Final = operation("keyring.create", CreateKeyrings, Keyrings, _S, _W)
KEYRING_LIST: Final = operation("keyring.list", ListKeyrings, Keyrings, _S)
KEYRING_SHOW: Final = operation("keyring.show", KeyringRef, KeyringView, _S)
KEYRING_DELETE: Final = operation("keyring.delete", KeyringRef, Empty, _S, _W)
KEYRING_POLICY: Final = operation("keyring.policy", PolicyChange, PolicyView, _S, _W)
KEYRING_REKEY: Final = operation("keyring.rekey", Empty, RekeyState, _S, _W, since="0.2")
KEYRING_RESEAL: Final = operation("keyring.reseal", Empty, RekeyState, _S, _W, since="0.2")
KEYRING_REKEY_STATE: Final = operation("keyring.rekey-state", Empty, RekeyState, _S)
ROLE_INIT: Final = operation("role.init", InitRole, Empty, _S, _W)
ROLE_SET: Final = operation("role.set", SetRole, Empty, _S, _W)
ROLE_LOCKS: Final = operation("role.locks", KeyringRef, RoleLocks, _S)
CLIENT_LIST: Final = operation("client.list", Empty, Clients, _S)
CLIENT_REVOKE: Final = operation("client.revoke", ClientRef, Empty, _S, _W)
CLIENT_ASSIGN: Final = operation("client.assign", Assignment, Empty, _S, _W)
CLIENT_UNASSIGN: Final = operation("client.unassign", Assignment, Empty, _S, _W)
USER_ADD: Final = operation("user.add", AddUser, Empty, _S, _W)
USER_LIST: Final = operation("user.list", Empty, Users, _S)
USER_DELETE: Final = operation("user.delete", UserRef, Empty, _S, _W)
USER_RESET: Final = operation("user.reset", ResetUser, Empty, _S, _W)
USER_UNLOCK: Final = operation("user.unlock", Unlock, Empty, _S, _W)
USER_ROLE_CREATE: Final = operation("user.role-create", CreateRole, Empty, _S, _W, since="0.2")
USER_ROLE_LIST: Final = operation("user.role-list", Empty, Roles, _S)
USER_ROLE_DELETE: Final = operation("user.role-delete", RoleRef, Empty, _S, _W, since="0.2")
CLUSTER_SHOW: Final = operation("cluster.show", Empty, ClusterView, _S)
CLUSTER_POLICY: Final = operation("cluster.policy", PolicyChange, PolicyView, _S, _W)
CLUSTER_VERSION: Final = operation("cluster.version", Empty, VersionView, _S)
CLUSTER_UPGRADE: Final = operation("cluster.upgrade", Empty, VersionView, _S, _W)
CLUSTER_LEAVE: Final = operation("cluster.leave", MemberRef, Remark, _S, _W)
CLUSTER_DELETE: Final = operation("cluster.delete", MemberRef, Remark, _S, _W)
MEMBER_INVITE: Final = operation("member.invite", Empty, InvitationView, _S, _W)
MEMBER_SET: Final = operation("member.set", ChangeMember, Remark, _S, _W)
MEMBER_PROMOTE: Final = operation("member.promote", MemberRef, Remark, _S, _W)
MEMBER_REMOVE: Final = operation("member.remove", MemberRef, Remark, _S, _W)
MEMBER_DELETE: Final = operation("member.delete", DeleteMember, Remark, _S, _W)
MEMBER_DIVERGENT: Final = operation("member.divergent-entries", LookAtDivergent, Divergent, _S, _W)
MEMBER_MOVE: Final = operation("member.move", MoveMember, Remark, _S, _W, since="0.2")
GROUP_CREATE: Final = operation("group.create", NewGroup, Remark, _S, _W, since="0.2")
GROUP_LIST: Final = operation("group.list", Empty, Groups, _S)
GROUP_DELETE: Final = operation("group.delete", GroupRef, Remark, _S, _W, since="0.2")
APPROVAL_LIST: Final = operation("approval.list", Empty, Approvals, _S)
APPROVAL_APPROVE: Final = operation("approval.approve", ApprovalRef, ApprovalView, _S, _W, since="0.2")
APPROVAL_DENY: Final = operation("approval.deny", ApprovalRef, ApprovalView, _S, _W, since="0.2")
STATUS: Final = operation("status.show", Empty, StatusView, _S)
