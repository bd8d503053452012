"""Administers a cluster, as appliance users and the PO do, through any member.

    with lnh.admin.connect("hsm1:4400", "admin", password, fingerprint="SHA256:...") as administration:
        administration.create_keyrings("payments")

A registered client logs in with `login(cluster.connection, ...)` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from lnh.arguments import checked, checks
from lnh.keyring_lists import keyring_labelled, keyring_listing
from lnh.net.connection import Connection
from lnh.objects.listings import Listed, Listing
from lnh.registration import connect_as_guest
from lnh.sessions import Password, Session, asked
from lnh.sessions import change_password as _change_password
from lnh.sessions import login as _login
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, AuditFailed, ClientUnknown, LimitReached, LnhError, NameUnknown
from lnh_common.messages import admin as wire
from lnh_common.messages import smk as smk_wire
from lnh_common.messages.admin import (
    ApprovalView,
    ClientView,
    ClusterView,
    GroupView,
    InvitationView,
    KeyringView,
    MemberView,
    Permission,
    RoleLock,
    RoleView,
    StatusView,
    UserView,
    VersionView,
)
from lnh_common.messages.audit import AUDIT_EXPORT, ReadTrail
from lnh_common.messages.base import Empty
from lnh_common.messages.overview import OVERVIEW, Overview
from lnh_common.messages.session import Credential, LoggedIn, Role
from lnh_common.messages.smk import SmkOrdered, SmkView
from lnh_common.messages.store import Divergent
from lnh_common.wire.audit import ChainBroken, Position, parse_line

if TYPE_CHECKING:
    from lnh.backups import Backups

__all__ = [
    "Administration",
    "ApprovalView",
    "ClientView",
    "ClusterView",
    "GroupView",
    "InvitationView",
    "KeyringView",
    "MemberView",
    "Overview",
    "Permission",
    "RoleLock",
    "RoleView",
    "SmkView",
    "StatusView",
    "UserView",
    "VersionView",
    "connect",
    "login",
]

A = TypeVar("A", bound="Administration")
V = TypeVar("V", ClientView, MemberView, RoleView)

_DERIVES_WITHIN: Final = 60.0  # seconds: Argon2id with 256 MiB on a slow machine


_EXPORT_ANEW: Final = {"advice": "export again, through the same member: `lnh audit verify` there checks its trail"}


def _continued(line: str, before: Position | None) -> Position:
    """Check that a line of a trail continues what came before, and return where it stands; raises AuditFailed."""
    try:
        parsed = parse_line(f"{line}\n".encode(), before)
    except ChainBroken as error:
        after = f" behind index {before.index}" if before else ""
        raise AuditFailed(f"what came{after} is not what follows in the audit trail: {error}", _EXPORT_ANEW) from None
    return Position(parsed.index, bytes.fromhex(parsed.hash))


def _with_names(policy: dict[str, Any]) -> dict[str, Any]:
    """Name the mechanisms of a policy, of which there are tables that most calls do without."""
    from lnh.objects.encoding import named_policy

    return named_policy(policy)


@checked
class Administration(Session):
    """A session of an appliance user, of the PO, or of both at once; a context manager that logs out.

    Which role may call which method is the table's in docs/operations.md; other calls raise PermissionDenied.
    """

    @property
    def backups(self) -> Backups:
        """The archives of the member that answers, with the methods for them."""
        from lnh.backups import Backups

        return Backups(self)

    def create_keyrings(self, label: str, total: int = 1, index: int = 1) -> list[KeyringView]:
        """Create keyrings; for an admin and the PO together.

        Args:
            label: of one keyring; several have it followed by a running number.
            total: 1 to 100.
            index: the first running number.

        Raises NameTaken, LimitReached, MemberReadOnly, OutcomeUnknown.
        """
        check_total(label, total, index)
        message = wire.CreateKeyrings(label=label, total=total, index=index)
        return list(self.ask(wire.KEYRING_CREATE, message).keyrings)

    def keyrings(self, *, current: bool = False) -> Listing[KeyringView]:
        """List every keyring, a page at a time as they are taken.

        Args:
            current: demand all there are, from a member that is in step; raises MemberBehind where there is none. The
                argument means the same in every method that lists something.
        """
        return keyring_listing(partial(self.ask, wire.KEYRING_LIST), current=current)

    def keyring(self, label: str) -> KeyringView:
        """Find the keyring with this label; raises KeyringUnknown, or MemberBehind where that cannot be told."""
        return keyring_labelled(partial(self.ask, wire.KEYRING_LIST), label)

    def show_keyring(self, label: str, *, current: bool = False) -> KeyringView:
        """Show a keyring with its policy, number of objects and assigned clients; raises KeyringUnknown."""
        view = self.ask(wire.KEYRING_SHOW, wire.KeyringRef(keyring=self.keyring(label).id), current=current)
        return msgspec.structs.replace(view, policy=_with_names(view.policy))

    def role_locks(self, label: str, *, current: bool = False) -> Listed[RoleLock]:
        """Say which roles of a keyring are locked, for whom and until when; raises KeyringUnknown.

        Raises UnknownOperation where a member of version 0.1 answers.
        """
        found = self.ask(wire.ROLE_LOCKS, wire.KeyringRef(keyring=self.keyring(label).id), current=current)
        return Listed(found.locks, found.behind, found.skipped)

    def delete_keyring(self, label: str) -> None:
        """Delete a keyring and every object in it; for an admin and the PO together. Raises KeyringUnknown."""
        self.ask(wire.KEYRING_DELETE, wire.KeyringRef(keyring=self.keyring(label).id))

    def init_krso(self, label: str, password: str) -> None:
        """Set a keyring's first KRSO credential, good for nothing but being changed; for an admin and the PO.

        Raises AlreadyDone when the KRSO has a credential, PasswordInvalid.
        """
        self.ask(wire.ROLE_INIT, wire.InitRole(keyring=self.keyring(label).id, password=password))

    def clients(self, *, current: bool = False) -> Listed[ClientView]:
        """List every registered client."""
        found = self.ask(wire.CLIENT_LIST, Empty(), current=current)
        return Listed(found.clients, found.behind, found.skipped)

    def client(self, name: str) -> ClientView:
        """Find the client of this name; raises ClientUnknown, or MemberBehind where that cannot be told."""
        return _named(self.clients, name, lambda _: ClientUnknown(f"no client {name!r}"))

    def revoke_client(self, name: str) -> None:
        """End a client's registration, now and for good; raises ClientUnknown."""
        self.ask(wire.CLIENT_REVOKE, wire.ClientRef(client=name))

    def assign(self, client: str, keyring: str) -> None:
        """Let only assigned clients see a keyring, this client among them; raises ClientUnknown, KeyringUnknown."""
        self.ask(wire.CLIENT_ASSIGN, wire.Assignment(client=client, keyring=self.keyring(keyring).id))

    def unassign(self, client: str, keyring: str) -> None:
        """Take an assignment back; once the last is gone, every client sees the keyring again."""
        self.ask(wire.CLIENT_UNASSIGN, wire.Assignment(client=client, keyring=self.keyring(keyring).id))

    def add_user(self, name: str, role: str, password: str) -> None:
        """Add an appliance user: admin, operator, monitor or a custom role.

        Raises NameTaken, PasswordInvalid, NameUnknown (there is no such role), PermissionDenied.
        """
        self.ask(wire.USER_ADD, wire.AddUser(name=name, role=role, password=password))

    def users(self, *, current: bool = False) -> Listed[UserView]:
        """List every appliance user."""
        found = self.ask(wire.USER_LIST, Empty(), current=current)
        return Listed(found.users, found.behind, found.skipped)

    def delete_user(self, name: str) -> None:
        """Delete an appliance user and end its sessions; raises NameUnknown."""
        self.ask(wire.USER_DELETE, wire.UserRef(name=name))

    def reset_user(self, name: str, password: str) -> None:
        """Give another appliance user a new password, good for nothing but being changed; that user's sessions end.

        Raises NameUnknown, PasswordInvalid, NotPossible (it is who asks), PermissionDenied.
        """
        self.ask(wire.USER_RESET, wire.ResetUser(name=name, password=password))

    def unlock_user(self, name: str) -> None:
        """Forget an appliance user's failed logins, which unlocks it; raises NameUnknown, PermissionDenied."""
        self.ask(wire.USER_UNLOCK, wire.Unlock(role=Role.USER, name=name))

    def unlock_po(self) -> None:
        """Forget the PO's failed logins, which unlocks it; raises PermissionDenied."""
        self.ask(wire.USER_UNLOCK, wire.Unlock(role=Role.PO))

    def unlock_role(self, label: str, role: Role) -> None:
        """Forget the failed logins of a keyring's KRSO or KRCO, which unlocks it.

        Raises KeyringUnknown, PermissionDenied, ArgumentInvalid for a role that no keyring has.
        """
        if not role.of_keyring:
            raise ArgumentInvalid(f"{role.value} is no role of a keyring")
        self.ask(wire.USER_UNLOCK, wire.Unlock(role=role, keyring=self.keyring(label).id))

    def roles(self, *, current: bool = False) -> Listed[RoleView]:
        """List every appliance role: the built-in ones first, then the custom ones."""
        found = self.ask(wire.USER_ROLE_LIST, Empty(), current=current)
        return Listed(found.roles, found.behind, found.skipped)

    def role(self, name: str) -> RoleView:
        """Find the appliance role of this name; raises NameUnknown, or MemberBehind where that cannot be told."""
        return _named(
            self.roles,
            name,
            lambda found: NameUnknown(
                f"no role {name!r}; there are: {_names(found)}", {"advice": "lnh user role list shows what each may"}
            ),
        )

    def create_role(self, name: str, permissions: Iterable[Permission]) -> None:
        """Make a custom appliance role.

        Args:
            permissions: what its users may do; whoever makes a role holds them all.

        Raises NameTaken, LimitReached (64 custom roles), PermissionDenied.
        """
        self.ask(wire.USER_ROLE_CREATE, wire.CreateRole(name=name, permissions=tuple(permissions)))

    def delete_role(self, name: str) -> None:
        """Delete a custom appliance role; raises NameUnknown, NotPossible (users have it)."""
        self.ask(wire.USER_ROLE_DELETE, wire.RoleRef(name=name))

    def export_audit(self, after: int = 0) -> Iterator[str]:
        """Yield the lines of the audit trail of the member that answers, as they stand in it, behind this index.

        What is written while it is read is not in it. Each line is checked to continue the one before. `Chain` of
        `lnh_common.wire.audit` checks signatures too, with nothing else than the public half of the HSM's identity.

        Raises AuditFailed where a line does not hold, where lines are missing, and where another member answers in the
        middle: the lines before it hold.
        """
        until = 0
        end: Position | None = None
        while True:
            found = self.ask(AUDIT_EXPORT, ReadTrail(after=after, until=until))
            until = until or found.last
            for line in found.lines:
                end = _continued(line, end)
                yield line
            after = end.index if end else max(after, found.index)
            if after >= until:
                return
            if not found.lines:
                raise AuditFailed(
                    f"the member's audit trail ends at {after}, and had {until} lines before", _EXPORT_ANEW
                )

    def approvals(self, *, current: bool = False) -> Listed[ApprovalView]:
        """List what waits for a second person by policy `dual_control`, and what did until lately, the oldest first."""
        found = self.ask(wire.APPROVAL_LIST, Empty(), current=current)
        return Listed(found.approvals, found.behind, found.skipped)

    def approve(self, approval: bytes) -> ApprovalView:
        """Approve what another user asked for, who then asks the same again: it is carried out once, within its time.

        Args:
            approval: the id, which `approvals` lists and `ApprovalNeeded.detail["approval"]` names in hexadecimal.

        Raises NameUnknown, PermissionDenied (one's own), AlreadyDone (it was carried out), NotPossible (it expired).
        """
        return self.ask(wire.APPROVAL_APPROVE, wire.ApprovalRef(approval=approval))

    def deny(self, approval: bytes) -> ApprovalView:
        """Deny what was asked for, also one's own, and also where it was approved; raises as `approve`."""
        return self.ask(wire.APPROVAL_DENY, wire.ApprovalRef(approval=approval))

    def show(self, *, current: bool = False) -> ClusterView:
        """Show the cluster and its members."""
        return self.ask(wire.CLUSTER_SHOW, Empty(), current=current)

    def members(self, *, current: bool = False) -> Listed[MemberView]:
        """List every member, as the member that answers sees it."""
        found = self.show(current=current)
        return Listed(found.members, found.behind)

    def member(self, name: str) -> MemberView:
        """Find the member of this name; raises NameUnknown, or MemberBehind where that cannot be told."""

        def unknown(members: Listed[MemberView]) -> NameUnknown:
            return NameUnknown(f"no member {name!r}; there are: {_names(members)}")

        return _named(self.members, name, unknown)

    def invite(self) -> InvitationView:
        """Make an invitation for one new member, good once and for 15 minutes; for an admin and the PO together.

        Raises MemberReadOnly.
        """
        return self.ask(wire.MEMBER_INVITE, Empty())

    def set_member(
        self, name: str, *, new_name: str | None = None, host: str | None = None, port: int | None = None
    ) -> None:
        """Give a member another name or address; an argument that is not given stays. Raises NameUnknown, NameTaken."""
        change = wire.ChangeMember(member=self.member(name).id, name=new_name, host=host, port=port)
        self.ask(wire.MEMBER_SET, change)

    def groups(self, *, current: bool = False) -> Listed[GroupView]:
        """List every affinity group with its members, as the member that answers sees it."""
        found = self.ask(wire.GROUP_LIST, Empty(), current=current)
        return Listed(found.groups, found.behind)

    def create_group(self, label: str) -> None:
        """Create an affinity group; raises NameTaken, LimitReached (64 groups), ArgumentInvalid, MemberReadOnly."""
        self.ask(wire.GROUP_CREATE, wire.NewGroup(label=label))

    def delete_group(self, label: str) -> None:
        """Delete an affinity group; raises NameUnknown, NotPossible (it has members), MemberReadOnly."""
        self.ask(wire.GROUP_DELETE, wire.GroupRef(label=label))

    def move_member(self, name: str, group: str) -> None:
        """Move a member to another affinity group; raises NameUnknown, MemberReadOnly."""
        self.ask(wire.MEMBER_MOVE, wire.MoveMember(member=self.member(name).id, group=group))

    def promote(self, name: str) -> str:
        """Make a member the primary, losing nothing. Returns a remark, mostly empty.

        Raises NameUnknown, NotPossible.
        """
        return self.ask(wire.MEMBER_PROMOTE, wire.MemberRef(member=self.member(name).id)).remark

    def remove_member(self, name: str) -> str:
        """Remove a member that works; its HSM wipes the cluster's secrets. Returns a remark, mostly empty.

        Raises NameUnknown, NotPossible (the member is the primary, or does not answer).
        """
        return self.ask(wire.MEMBER_REMOVE, wire.MemberRef(member=self.member(name).id)).remark

    def delete_member(self, name: str, *, force: bool = False) -> str:
        """Remove a member that is lost for good; returns a remark, mostly empty.

        Args:
            force: go on although other members that should agree are missing too, whose writes may be lost.

        Raises NameUnknown, NotPossible (the member answers).
        """
        return self.ask(wire.MEMBER_DELETE, wire.DeleteMember(member=self.member(name).id, force=force)).remark

    def divergent(self, name: str, *, seen: bool = False) -> Divergent:
        """Show the entries that a member had to drop when it came back; raises NameUnknown, Unreachable.

        Args:
            seen: note that an administrator has looked; the member is DIVERGED no longer.
        """
        return self.ask(wire.MEMBER_DIVERGENT, wire.LookAtDivergent(member=self.member(name).id, seen=seen))

    def leave(self, member: bytes) -> str:
        """Have the member with this id leave; for an admin and the PO together. Returns a remark, mostly empty.

        Raises NameUnknown, NotPossible (the member is the primary, or the last one).
        """
        return self.ask(wire.CLUSTER_LEAVE, wire.MemberRef(member=member)).remark

    def delete_cluster(self, member: bytes) -> None:
        """Destroy the cluster with its last member, which has this id; for an admin and the PO together.

        Raises NotPossible while there are other members.
        """
        self.ask(wire.CLUSTER_DELETE, wire.MemberRef(member=member))

    def smk(self, *, current: bool = False) -> SmkView:
        """Show the generations of the SMK that the answering member's HSM holds, with their check values."""
        return self.ask(smk_wire.SMK_SHOW, Empty(), current=current)

    def backup_smk(self, passphrase: str) -> str:
        """Make a backup of the SMK and the cluster's identity; for an admin and the PO together.

        Returns the text of its file. It opens with the passphrase, in an HSM of the same cloning domain.

        Args:
            passphrase: 8 to 255 characters.

        Raises PasswordInvalid.
        """
        timeout = max(self.timeout, _DERIVES_WITHIN)
        return self.ask(smk_wire.SMK_BACKUP, smk_wire.BackupSmk(passphrase=passphrase), timeout).text

    def split_smk(self, threshold: int, count: int) -> tuple[str, list[str]]:
        """Make a backup of the SMK that shares open; for an admin and the PO together.

        Returns the text of its file and the shares, as they are printed. File and cloning domain are needed too.

        Args:
            threshold: shares that open it together, at least 2.
            count: of shares, at most 8.

        Raises ArgumentInvalid.
        """
        timeout = max(self.timeout, _DERIVES_WITHIN)
        made = self.ask(smk_wire.SMK_BACKUP, smk_wire.BackupSmk(threshold=threshold, count=count), timeout)
        return made.text, list(made.shares)

    def roll_over_smk(self) -> SmkOrdered:
        """Have the cluster's HSMs go over to a new generation of the SMK; for an admin and the PO together.

        It is ordered when this returns, and goes on by itself: `smk` shows how far it is. Sessions and requests go on.
        Make a backup of the SMK afterwards: one of before does not have the new generation.

        Raises NotPossible while a rollover is under way, or a member's HSM or version stands in the way; LimitReached.
        """
        return self.ask(smk_wire.SMK_ROLLOVER, Empty())

    def retire_smk(self, newest: int) -> SmkOrdered:
        """Have the cluster's HSMs drop every generation of the SMK but the newest; for an admin and the PO together.

        No archive that was made under one of those opens any more.

        Args:
            newest: generation that is to stay, as `smk` shows it.

        Raises NotPossible while something is sealed under an older one, or a member has not taken the newest.
        """
        return self.ask(smk_wire.SMK_RETIRE, smk_wire.RetireSmk(newest=newest))

    def policy(self, *, current: bool = False, **changes: object) -> dict[str, Any]:
        """Change fields of the cluster's policy, and return it; an admin and the PO change it together.

        Mechanisms go by name.
        """
        return _with_names(self.ask(wire.CLUSTER_POLICY, wire.PolicyChange(changes=changes), current=current).policy)

    def version(self, *, current: bool = False) -> VersionView:
        """Show the cluster's version, and which members stand in the way of a later one."""
        return self.ask(wire.CLUSTER_VERSION, Empty(), current=current)

    def upgrade(self) -> VersionView:
        """Raise the cluster's version to that of its members; for an admin and the PO together.

        From then on the cluster does what is new in that version, and no member of an older one takes part: none goes
        back.

        Raises NotPossible while a member is of an older version, or not read-write.
        """
        return self.ask(wire.CLUSTER_UPGRADE, Empty())

    def overview(self, *, current: bool = False) -> Overview:
        """Show the whole cluster, with what each member tells of itself now."""
        return self.ask(OVERVIEW, Empty(), current=current)

    def status(self, *, current: bool = False) -> StatusView:
        """Show the cluster, and the services of the member that answers."""
        return self.ask(wire.STATUS, Empty(), current=current)


def _named(listed: Callable[..., Listed[V]], name: str, unknown: Callable[[Listed[V]], LnhError]) -> V:
    """Find the item of this name; only a member that is in step can say that there is none."""
    found = listed()
    if all(view.name != name for view in found) and not found.current:
        found = listed(current=True)
    for view in found:
        if view.name == name:
            return view
    raise unknown(found)


def _names(views: Iterable[ClientView | MemberView | RoleView]) -> str:
    return ", ".join(view.name for view in views)


def check_total(label: str, total: int, index: int) -> None:
    """Raise LimitReached for more keyrings than one call creates, saying how to go on."""
    most = limits.KEYRINGS_PER_CREATE
    if not 1 <= total <= most:
        start = f" --index {index}" if index != 1 else ""
        advice = f"lnh keyring create {label} --total {most}{start}, then --total {most} --index {index + most}"
        detail = {"advice": advice} if total > most else {"advice": "--total 1 or more"}
        raise LimitReached(f"{total} keyrings in one call; at most {most}", detail)


def credentials(user: str = "", password: str = "", po_password: str = "") -> tuple[Credential, ...]:
    """Make the credentials of an appliance user, of the PO, or of both."""
    found: tuple[Credential, ...] = ()
    if user:
        found += (Credential(role=Role.USER, name=user, password=password),)
    if po_password:
        found += (Credential(role=Role.PO, password=po_password),)
    return found


@checks
def login(
    connection: Connection,
    user: str = "",
    password: Password = "",
    *,
    po_password: Password = "",
    with_user: str = "",
    with_password: str = "",
    timeout: float = limits.DEADLINE,
) -> Administration:
    """Log in as an appliance user, as the PO, or as both at once.

    Args:
        password, po_password: or what asks for it. Then the session asks again before it ends, and logs in anew.
        with_user, with_password: another user who is there too. What policy `dual_control` names needs no approval in a
            session of two users of whom one may do it, and the other one approve it. There is no PO beside them.

    Raises PasswordIncorrect, PasswordLocked and what a call raises.
    """
    beside = credentials(with_user, with_password)
    return _opened(Administration, connection, user, password, po_password, timeout, beside)


def _opened(
    kind: type[A],
    connection: Connection,
    user: str,
    password: Password,
    po_password: Password,
    timeout: float,
    beside: tuple[Credential, ...] = (),
) -> A:
    def log_in() -> tuple[bytes, LoggedIn]:
        given = (*credentials(user, asked(password), asked(po_password)), *beside)
        return _login(connection, *given, timeout=timeout)

    secret, logged_in = log_in()
    asks = not (isinstance(password, str) and isinstance(po_password, str))
    return kind(connection, secret, logged_in, timeout=timeout, again=log_in if asks else None)


@checks
def change_password(connection: Connection, user: str, old: str, new: str, *, timeout: float = limits.DEADLINE) -> None:
    """Change an appliance user's own password; raises PasswordIncorrect, PasswordInvalid."""
    _change_password(connection, Credential(role=Role.USER, name=user, password=old), new, timeout=timeout)


@checks
def change_po_password(connection: Connection, old: str, new: str, *, timeout: float = limits.DEADLINE) -> None:
    """Change the PO's password; raises PasswordIncorrect, PasswordInvalid."""
    _change_password(connection, Credential(role=Role.PO, password=old), new, timeout=timeout)


class _GuestAdministration(Administration):
    """A session that closes the connection that was made for it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.connection.close()


@checks
def connect(
    member: str,
    user: str = "",
    password: Password = "",
    *,
    po_password: Password = "",
    fingerprint: str | None = None,
    confirm: Callable[[str, str], bool] | None = None,
    timeout: float = limits.DEADLINE,
) -> Administration:
    """Administer from a machine that is not registered, through the member at host:port.

    Args:
        password, po_password: as of `login`.
        fingerprint: of the cluster's identity.
        confirm: called with label and fingerprint when no fingerprint is given; tells whether to go on.

    Raises FingerprintMismatch, PasswordIncorrect, Unreachable.
    """
    connection = connect_as_guest(member, fingerprint, confirm, timeout=timeout)
    try:
        return _opened(_GuestAdministration, connection, user, password, po_password, timeout)
    except BaseException:
        connection.close()
        raise
