"""Routes of backups."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import backup
from lnh_common.messages.backup import ArchiveView, ScheduleView
from lnh_rest import admin_shapes, shapes
from lnh_rest.base import Octets
from lnh_rest.handlers import backups
from lnh_rest.route import Route, Who

_U = Who.USER

ROUTES: Final = (
    Route(
        "GET",
        "/v1/backups",
        "List the archives of the member that answers.",
        _U,
        backups.list_backups,
        (backup.LIST,),
        query=shapes.PageQuery,
        reply=admin_shapes.ArchivePage,
    ),
    Route(
        "POST",
        "/v1/backups",
        "Begin to make an archive of the whole cluster.",
        _U,
        backups.make_backup,
        (backup.NOW,),
        reply=admin_shapes.BackupJob,
        status=202,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/backups/{archive}",
        "Show what an archive says of itself.",
        _U,
        backups.show_backup,
        (backup.SHOW,),
        reply=ArchiveView,
    ),
    Route(
        "DELETE",
        "/v1/backups/{archive}",
        "Remove an archive from the member's disk.",
        _U,
        backups.delete_backup,
        (backup.DELETE,),
        status=204,
    ),
    Route(
        "GET",
        "/v1/backups/{archive}/content",
        "Fetch an archive.",
        _U,
        backups.download_backup,
        (
            backup.SHOW,
            backup.READ,
        ),
        reply=Octets,
        etag=True,
    ),
    Route(
        "PUT",
        "/v1/backups/{archive}/content",
        "Bring an archive to the member that answers.",
        _U,
        backups.upload_backup,
        (
            backup.WRITE,
            backup.SHOW,
        ),
        body=Octets,
        reply=ArchiveView,
    ),
    Route(
        "POST",
        "/v1/backups/{archive}/verify",
        "Begin to read every byte of an archive.",
        _U,
        backups.verify_backup,
        (backup.VERIFY,),
        reply=admin_shapes.BackupJob,
        status=202,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/backups/{archive}/check",
        "Begin to look which credentials a restore would change.",
        _U,
        backups.check_backup,
        (backup.RESTORE,),
        reply=admin_shapes.BackupJob,
        status=202,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/backups/{archive}/restore",
        "Begin to put an archive's state in place of the cluster's.",
        _U,
        backups.restore_backup,
        (backup.RESTORE,),
        reply=admin_shapes.BackupJob,
        status=202,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/backup-jobs/last",
        "Show the last job of the member that answers.",
        _U,
        backups.show_last_backup_job,
        (backup.JOB,),
        reply=admin_shapes.BackupJob,
    ),
    Route(
        "GET",
        "/v1/backup-jobs/{job}",
        "Show a job of the member that answers.",
        _U,
        backups.show_backup_job,
        (backup.JOB,),
        reply=admin_shapes.BackupJob,
    ),
    Route(
        "GET",
        "/v1/backup-schedule",
        "Show when backups are made by themselves.",
        _U,
        backups.show_schedule,
        (backup.SCHEDULE,),
        reply=ScheduleView,
        looks=True,
    ),
    Route(
        "PUT",
        "/v1/backup-schedule",
        "Set when backups are made by themselves.",
        _U,
        backups.set_schedule,
        (backup.SCHEDULE,),
        body=admin_shapes.NewSchedule,
        reply=ScheduleView,
    ),
    Route(
        "DELETE",
        "/v1/backup-schedule",
        "Have no backups made by themselves.",
        _U,
        backups.end_schedule,
        (backup.SCHEDULE,),
        reply=ScheduleView,
    ),
)
