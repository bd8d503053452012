"""The JSON of requests and answers about members, people, clients, policies and backups."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from lnh_common import limits
from lnh_common.messages.admin import ApprovalView, NewName, Permission
from lnh_common.messages.backup import ArchiveView, Changed, Schedule
from lnh_rest.base import Body, Secretive
from lnh_rest.problems import Problem
from lnh_rest.shapes import KeyringRole, Label, Page, Password, PersonName

Host: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Permissions: TypeAlias = Annotated[tuple[Permission, ...], msgspec.Meta(min_length=1, max_length=len(Permission))]
LineIndex: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
ShareCount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=limits.SHARES)]

# Members


class MemberChange(Body):
    """Give a member another name or address; a field that is not given stays."""

    name: NewName | None = None
    host: Host | None = None
    port: Port | None = None


class MemberGroup(Body):
    """Name the affinity group of a member."""

    group: PersonName


class Removal(Body):
    """Say how a member that is lost for good is removed.

    Args:
        force: go on although other members that should agree are missing too, whose writes may be lost.
    """

    force: bool = False


class Look(Body):
    """Ask for the entries that a member had to drop.

    Args:
        seen: note that an administrator has looked; the member is DIVERGED no longer.
    """

    seen: bool = False


# People


class NewUser(Secretive):
    """Add an appliance user: admin, operator, monitor or a custom role.

    Args:
        password: 8 to 255 characters.
    """

    name: NewName
    role: PersonName
    password: Password


class NewPassword(Secretive):
    """Give a password, 8 to 255 characters."""

    password: Password


class UserPassword(Secretive, kw_only=True, tag_field="as", tag="user"):
    """Change one's own password, of an appliance user or (without a user) of the PO."""

    user: PersonName = ""
    password: Password
    new: Password


class KeyringPassword(Secretive, tag_field="as", tag="keyring"):
    """Change one's own password, of a keyring's KRSO or KRCO; the KRSO's first change makes the keyring's key."""

    keyring: Label
    role: KeyringRole
    password: Password
    new: Password


class NewRole(Body):
    """Make a custom appliance role: a name for permissions that its users hold."""

    name: NewName
    permissions: Permissions


class LockedRole(Body):
    """Name a role of a keyring."""

    role: KeyringRole


# Policies and approvals


class Changes(Body):
    """Change these fields of a policy, and no others; mechanisms go by name."""

    changes: dict[str, Any]


class ApprovalPage(Page):
    """Answer with a page of requests that wait for a second person, or did until lately, by id."""

    items: tuple[ApprovalView, ...]


# The SMK


class SmkBackup(Secretive):
    """Make a backup of the SMK, which opens with a passphrase or with shares, in an HSM of the same cloning domain.

    Args:
        passphrase: 8 to 255 characters; empty where shares open it.
        threshold, count: so many of so many shares open it.
    """

    passphrase: Password = ""
    threshold: ShareCount = 0
    count: ShareCount = 0


class SmkBackedUp(Secretive):
    """Answer with a backup of the SMK: the text of its file, and the shares that open it, as they are printed."""

    text: str
    shares: tuple[str, ...]


class SmkNewest(Body):
    """Drop every generation of the SMK but this one, as `GET /v1/smk` shows it."""

    newest: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


# Backups


class ArchivePage(Page):
    """Answer with a page of the archives of one member, by name.

    Args:
        member: whose they are.
    """

    member: str
    items: tuple[ArchiveView, ...]


class BackupJob(Body):
    """Describe a job of a member's backup service, which does one at a time.

    Args:
        id: for `GET /v1/backup-jobs/{job}`.
        kind: make, verify, check (what a restore would change) or restore.
        state: running, done or failed.
        step: what the job is at.
        archive: that it is about.
        done, total: bytes of a running job, or another measure of its progress.
        problem: of a failed job.
        changed: of a restore and its check, the first credentials that differ.
        changes: how many credentials differ.
    """

    id: str
    kind: str
    state: str
    step: str
    archive: str
    done: int
    total: int
    problem: Problem | None
    changed: tuple[Changed, ...]
    changes: int


class NewSchedule(Body):
    """Set when backups are made by themselves.

    Args:
        schedule: its `since` is now, unless hours are to count from an earlier time.
    """

    schedule: Schedule


# The audit trail


class TrailQuery(Body):
    """Ask for lines of the audit trail of the member that answers.

    Args:
        after: those behind this index.
        until: none behind this one; 0 takes all there are.
    """

    after: LineIndex = 0
    until: LineIndex = 0


class TrailState(Body):
    """Say what an audit trail proves: its chain of hashes, and the heads that an HSM signed.

    Args:
        holds: whether nothing speaks against it.
        problem: where the chain breaks, and why; empty where it holds.
        identity: fingerprint of the HSM that signed its last head; compare it with what `lnh hsm show` says there.
        first, last: indexes of the lines that were looked at.
        records: among them.
        signed: of those, how many a head covers.
        head: the hash of the last line.
    """

    holds: bool
    problem: str
    identity: str
    first: int
    last: int
    records: int
    signed: int
    head: str
