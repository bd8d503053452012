"""An example of each request and answer of administration, for the document."""

from __future__ import annotations

from typing import Any, Final

from lnh_common.messages import admin, smk
from lnh_common.messages.admin import Decision, Permission
from lnh_common.messages.audit import TrailLines
from lnh_common.messages.backup import ArchiveView, Every, Run, Schedule, ScheduleView
from lnh_common.messages.overview import Overview, Seen
from lnh_common.messages.session import Role
from lnh_common.messages.store import Divergent
from lnh_rest import admin_shapes as shapes
from lnh_rest.shapes import KeyringRole

ID: Final = bytes.fromhex("5f0c7b7d0e8a3b5c6d7e8f9a0b019a4f")
_AT: Final = 1_796_000_000
_ARCHIVE: Final = ArchiveView(
    name="prod-20261129T020000Z-A.lnhb",
    size=1_048_576,
    created_at=_AT,
    id=ID,
    cluster=ID,
    label="prod",
    index=4711,
    member="A",
    product="0.2.0",
    generation=1,
    items={"keyrings": 1},
    hash=bytes(32),
)
_APPROVAL: Final = admin.ApprovalView(
    id=ID,
    operation="keyring.delete",
    about="payments",
    arguments={"keyring": ID.hex()},
    requesters=("admin",),
    requested_at=_AT,
    expires=_AT + 86_400,
    decision=Decision.WAITING,
)
_SCHEDULE: Final = Schedule(every=Every.DAY, minute=120)

ADMINISTRATION: Final[tuple[Any, ...]] = (
    shapes.MemberChange(name="B", host="hsm2", port=4400),
    shapes.MemberGroup(group="east"),
    shapes.Removal(force=False),
    shapes.Look(seen=True),
    shapes.NewUser(name="olga", role="operator", password="a password"),
    shapes.NewPassword(password="a password"),
    shapes.UserPassword(user="olga", password="a password", new="another password"),
    shapes.KeyringPassword(keyring="payments", role=KeyringRole.KRSO, password="a password", new="another password"),
    shapes.NewRole(name="auditor", permissions=(Permission.VIEW, Permission.AUDIT_EXPORT)),
    shapes.LockedRole(role=KeyringRole.KRCO),
    shapes.Changes(changes={"session_minutes": 30}),
    shapes.ApprovalPage(items=(_APPROVAL,), total=1, next=""),
    shapes.SmkBackup(threshold=2, count=3),
    shapes.SmkBackedUp(text="lnh-smk-backup ...", shares=("lnh-share-1 ...",)),
    shapes.SmkNewest(newest=2),
    shapes.ArchivePage(member="A", items=(_ARCHIVE,), total=1, next=""),
    shapes.BackupJob(
        id=ID.hex(),
        kind="make",
        state="running",
        step="writing",
        archive=_ARCHIVE.name,
        done=4096,
        total=1_048_576,
        problem=None,
        changed=(),
        changes=0,
    ),
    shapes.NewSchedule(schedule=_SCHEDULE),
    shapes.TrailState(
        holds=True,
        problem="",
        identity="SHA256:q83vEjRWeJo",
        first=1,
        last=120,
        records=110,
        signed=110,
        head=bytes(32).hex(),
    ),
    _ARCHIVE,
    _APPROVAL,
    ScheduleView(
        schedule=_SCHEDULE,
        words="daily at 02:00 UTC, the newest 7",
        next=_AT,
        run=Run(slot=_AT - 86_400, member=ID, name="A", started=_AT - 86_400, ended=_AT - 86_390),
    ),
    TrailLines(lines=('{"index":1,...}',), index=1, last=120),
    Overview(
        label="prod",
        seen=Seen(cluster=ID, member=ID, primary=ID, epoch=1, at=_AT * 1000, groups=("local",), members=()),
    ),
    admin.VersionView(product="0.2", newest="0.2", waits_for=()),
    admin.PolicyView(policy={"import": False, "session_minutes": 15}),
    admin.Remark(),
    admin.InvitationView(text="lnh-invitation ...", expires=_AT + 900, identity="SHA256:q83vEjRWeJo"),
    admin.RekeyState(generation=2, open=True, done=40, objects=256, begun_at=_AT),
    admin.RoleLocks(locks=(admin.RoleLock(role=Role.KRCO, client="web-1", until=_AT),)),
    admin.UserView(name="olga", role="operator"),
    admin.RoleView(name="auditor", permissions=("view", "audit-export"), custom=True),
    admin.ClientView(name="web-1", id=ID, registered_at=_AT, revoked=False, monitor="", keyrings=(ID,)),
    smk.SmkView(
        cluster=ID,
        label="prod",
        generations=(smk.SmkGenerationView(generation=1, check="3f2a"),),
        in_use=1,
        progress="no rollover is under way",
    ),
    smk.SmkOrdered(newest=2, generations=(1, 2)),
    Divergent(diverged=False, files=(), aside=()),
)
