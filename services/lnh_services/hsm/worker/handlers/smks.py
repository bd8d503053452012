"""Serves the operations on the SMK: what there is of it, and what the core is ordered to do with it."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from lnh_common.messages import membership, smk, store
from lnh_common.messages.base import Empty
from lnh_common.wire.shares import check_numbers
from lnh_services.hsm import answers
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster.smk_backup import check_value
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import RECORD_TABLES, TABLES, CredentialRecord, HsmRecord, Records, generation_of
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request

_PAGE: Final = 1024


def show(worker: WorkerCore, request: Request[Empty]) -> Steps[smk.SmkView]:
    """Show the generations that this member's HSM holds, and how far a rollover is."""
    records = yield from worker.started()
    shared, _ = yield from worker.shared_smk()
    held = worker.secrets().secrets
    newest = shared.newest if shared is not None else held.smk[-1].generation
    left = counted = 0
    rolling = shared is not None and not shared.is_whole(records.instance)
    if rolling:
        counted, left = yield from _count(worker, records, newest)
    view = smk.SmkView(
        cluster=held.cluster,
        label=held.label,
        generations=tuple(
            smk.SmkGenerationView(generation=each.generation, check=check_value(each.key).hex()) for each in held.smk
        ),
        in_use=records.generation,
        progress=_progress(newest, records.generation, rolling=rolling),
        records=counted,
        left=left,
    )
    if shared is None:
        return view
    hsms = {each.member: each.smk for each in (yield from worker.scan_all(HsmRecord))}
    listed = (yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())).members
    members = [smk.SmkMemberView(member=each.name, newest=hsms.get(each.id, 0)) for each in listed]
    return replace(view, members=tuple(members))


def _progress(newest: int, in_use: int, *, rolling: bool) -> str:
    if not rolling:
        return "no rollover is under way"
    if in_use < newest:
        return f"generation {newest} is shared, and used once every member in step holds it"
    return f"generation {newest} is in use, and what is stored is sealed under it anew"


def _count(worker: WorkerCore, records: Records, newest: int) -> Steps[tuple[int, int]]:
    """Count the records, and those of them that are sealed under an older generation."""
    counted = left = 0
    for table in sorted(RECORD_TABLES):
        asked: store.ListScopes | None = store.ListScopes(table=table)
        while asked is not None:
            listed = yield from worker.genuine(answers.scopes(asked))
            for scope in listed.scopes:
                scan: store.Scan | None = store.Scan(table=table, scope=scope, limit=_PAGE, body=True)
                while scan is not None:
                    generations, scan = yield from worker.genuine(_page(scan, records), records)
                    counted += len(generations)
                    left += sum(each < newest for each in generations)
            asked = replace(asked, after=listed.scopes[-1]) if listed.more else None
    return counted, left


def _page(scan: store.Scan, records: Records) -> Steps[tuple[list[int], store.Scan | None]]:
    """Read which generation each record of a page is sealed under, and what to ask for the next page."""
    page = yield from answers.scan(scan)
    generations = [_generation(item, records) for item in page.items]
    return generations, replace(scan, after=page.items[-1].key.id) if page.more else None


def _generation(item: store.Item, records: Records) -> int:
    generation = generation_of(item.body)
    if item.key.table != TABLES[CredentialRecord]:
        return generation
    return min(generation, records.read(CredentialRecord, item).generation)


def roll_over(worker: WorkerCore, request: Request[Empty]) -> Steps[smk.SmkOrdered]:
    """Order another generation of the SMK."""
    return (yield from ask(Peer.CORE, smk.ROLL_SMK, smk.OrderSmk(id=request.new_id())))


def retire(worker: WorkerCore, request: Request[smk.RetireSmk]) -> Steps[smk.SmkOrdered]:
    """Order that the older generations be dropped."""
    order = smk.OrderSmk(id=request.new_id(), newest=request.message.newest)
    return (yield from ask(Peer.CORE, smk.RETIRE_SMKS, order))


def backup(worker: WorkerCore, request: Request[smk.BackupSmk]) -> Steps[smk.SmkBackupMade]:
    """Make a backup under a passphrase, or shares, and the cloning domain; raises PasswordInvalid, ArgumentInvalid."""
    asked = request.message
    if asked.threshold or asked.count:
        check_numbers(asked.threshold, asked.count)
    else:
        credentials.check_password(asked.passphrase)
    order = smk.MakeSmkBackup(
        id=request.new_id(), passphrase=asked.passphrase, threshold=asked.threshold, count=asked.count
    )
    return (yield from ask(Peer.CORE, smk.MAKE_SMK_BACKUP, order))
