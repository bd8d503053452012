"""Writes the data of this version, once: `python tests/data/make.py` (README.md beside it says when)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The product is imported once the path has what the tests share.
# ruff: noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import lnh_common
from lnh_common import errors, limits
from lnh_common.messages.hsm import AttemptStep, AuditEntry, LoginAttempt
from lnh_common.messages.session import Role
from lnh_common.messages.store import (
    OBJECTS,
    Change,
    Commit,
    Delete,
    DeleteScope,
    Item,
    Key,
    MemberInfo,
    Put,
    Require,
    Stage,
    Sweep,
    Switch,
)  # fmt: skip
from lnh_common.wire import archives, channel, codec
from lnh_common.wire import frames as wire
from lnh_services.hsm.appliance.state import Appliance, ApplianceFile, HsmState, StateFile
from lnh_services.hsm.audit.trail import Trail
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.auth.tokens import Grant, Token, seal_token
from lnh_services.hsm.backup import archive_keys
from lnh_services.hsm.crypto.argon2 import derive
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import TABLES
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import (  # fmt: skip
    ClusterId,
    Entry,
    Epoch,
    LeaseSettings,
    MemberId,
    Members,
    Milliseconds,
    Open,
    SetChange,
    Write,
)
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.replication import messages
from lnh_services.store.replication.messages import Persist
from models import carried
from models.carried import (
    ACTIVATION,
    CHANNEL_SECRET,
    CLIENT,
    HANDLE,
    INSTANCE,
    KEYRING,
    KEYRING_KEY,
    LOGIN,
    NEW_SESSION,
    OBJECT,
    OLD_SESSION,
    SIGN,
    SO_PASSWORD,
    TABLE,
    plain,
    sample,
)  # fmt: skip

NOW = 1_700_000_000_000
SESSIONS_APART = 2 * limits.DUPLICATE_WINDOW * 1000
QUICK = (64, 1, 1)  # Argon2id for passwords that protect nothing
VALUE = bytes(range(32))
REQUEST = b"R" * 16  # a change of groups
RESTORE = b"r" * 16
ARCHIVE = b"a" * 16


def state() -> HsmState:
    asked = credentials.derivation(SO_PASSWORD, argon2=QUICK)
    so = Verifier(password=KeptPassword.of(credentials.material(asked, derive(asked))))
    return msgspec.structs.replace(sample(HsmState), so=so)


def write_hsm(directory: Path, hsm: HsmState) -> None:
    file = StateFile(directory / "hsm.state", QUICK)
    cover = file.cover(hsm.label, hsm.identity_public())
    file.write(hsm, cover, derive(cover.derivation(ACTIVATION)))
    ApplianceFile(directory / "appliance.cbor").write(
        msgspec.structs.replace(sample(Appliance), format=Appliance().format)
    )
    guesses = OfflineAttempts(directory / "guesses.cbor")
    for number, client in enumerate((CLIENT, CLIENT, bytes(16))):
        for step in (AttemptStep.BEGIN, AttemptStep.WRONG)[: 1 + number]:  # the first of them was interrupted
            name = bytes([number]) * 16
            guesses.note(
                LoginAttempt(holder=b"holder", client=client, attempt=name, step=step, guess=name), NOW // 1000
            )
    trail = Trail(directory / "audit.jsonl", "b", segment_bytes=1200)
    trail.open(NOW)
    for number in range(4):
        detail = {"count": number, "names": ["a", "b"], "none": None, "yes": True}
        said = AuditEntry(
            identity="alice", role="admin", operation="key.generate", target=f"key {number}", outcome="ok",
            detail=detail,
        )  # fmt: skip
        trail.append([said], NOW + number)
        if number == 2:
            trail.sign(hsm.signing_key(), NOW + number)
    trail.close()


class Log:
    """The log of a cluster of three, and the engine of one of them that follows it."""

    def __init__(self, directory: Path, hsm: HsmState) -> None:
        assert hsm.cluster is not None
        self.hsm = hsm.cluster
        self.cluster, self.member = ClusterId(hsm.cluster.id), MemberId(hsm.cluster.member)
        self.ids = (MemberId(b"A" * 16), self.member, MemberId(b"C" * 16))
        self.engine = Disk(directory)
        self.first = Base(log.genesis(self.cluster), Milliseconds(0), Configuration())
        self.history = History(self.first)
        self.time = NOW
        self.sequence = 0
        self.epoch = Epoch(1, self.ids[0])
        self.steps = 0

    def infos(self, *ids: MemberId) -> tuple[MemberInfo, ...]:
        return tuple(
            MemberInfo(id=id_, name=f"member-{id_[:1].decode()}", host="127.0.0.1", port=7000 + id_[0], key=id_ * 2)
            for id_ in ids
        )

    def made(self, payload: log.Payload) -> Entry:
        """An entry that may follow, and is in no log yet."""
        return log.make_entry(self.history.last, self.epoch, Milliseconds(self.time), payload)

    def append(self, payload: log.Payload) -> None:
        self.time += 1
        self.history.extend((self.made(payload),))

    def write(self, *changes: Change, session: bytes = NEW_SESSION) -> None:
        self.sequence += 1
        self.append(
            Write(Commit(client=CLIENT, session=session, sequence=self.sequence, issued_at=self.time, changes=changes))
        )

    def step(self, committed: int, stored: int, **fields: Any) -> int:
        """Make what comes after entry `stored` durable; answers the last entry's index."""
        self.steps += 1
        last = self.history.last.index
        entries = tuple(self.history.between(stored, last))
        self.engine.persist(Persist(number=self.steps, committed=committed, entries=entries, **fields), "boot")
        return last

    def epoch_of(self, term: int, candidate: MemberId) -> None:
        self.epoch = Epoch(term, candidate)


def _put(id_: bytes, expected: int = 0, tags: tuple[bytes, ...] = (), unique: tuple[bytes, ...] = ()) -> Put:
    key = Key(table=TABLE, id=id_)
    return Put(key=key, expected=expected, head=b"head", body=b"body", tags=tags, unique=unique, limit=100)


def _put_aside(id_: bytes) -> Item:
    return Item(key=Key(table=TABLE, id=id_), version=3, head=b"head", tags=(id_,))


def write_store(directory: Path, hsm: HsmState) -> Log:
    """All kinds of entries; kept by a member whose log was shortened, dropped, and has an end that is not committed."""
    story = Log(directory / "store", hsm)
    a, b, c = story.ids
    gone = MemberId(b"D" * 16)
    story.append(Open(story.infos(a), (a,)))
    story.append(Members(story.infos(a, b, c, gone)))
    story.append(SetChange((a, b, c)))
    story.append(Members(story.infos(a, b, c)))
    for number in range(6):
        story.write(_put(b"old %d" % number), session=OLD_SESSION)
    story.time += SESSIONS_APART
    story.sequence = 0
    story.write(_put(b"old 0"))  # refused: it is there already
    story.write(_put(b"new", tags=(b"tag", b"unique"), unique=(b"unique",)))
    stored = story.step(committed=story.history.last.index, stored=0, found=(story.cluster, b, story.first),
                        promised=story.epoch)  # fmt: skip
    story.step(committed=stored, stored=stored, base=story.history.shorten(stored - 1))

    records = story.hsm.records(INSTANCE)
    for kind in TABLES:
        story.write(records.put(sample(kind), kind.__name__.encode(), 0, unique=kind.__name__))
    keys = KeyringKeys.derive(KEYRING_KEY, story.cluster, KEYRING)
    story.write(keys.put(HANDLE, 0, OBJECT, VALUE))
    story.append(LeaseSettings(lease_ms=2000, alone_ms=60_000))
    story.append(Members(tuple(msgspec.structs.replace(each, port=each.port + 10) for each in story.infos(a, b, c))))
    grouped = tuple(msgspec.structs.replace(each, group="far", door=each.id * 2) for each in story.infos(a, b, c))
    story.append(Members(grouped, groups=("far", "local"), request=REQUEST))
    story.write(
        Require(key=Key(table=TABLE, id=b"new"), version=1), Delete(key=Key(table=TABLE, id=b"old 1"), expected=1),
        Delete(key=Key(table=TABLE, id=b"old 2")), _put(b"old 3", expected=1),
    )  # fmt: skip
    story.write(Put(key=Key(table=TABLE, scope=b"scope", id=b"x"), expected=0, head=b""))
    story.write(DeleteScope(key=Key(table=TABLE, scope=b"scope")))
    extra = Item(key=Key(table=TABLE, id=b"restored"), version=7, head=b"head", body=b"body", tags=(b"restored",))
    for restore in (b"q" * 16, RESTORE):  # the first of the two is given up
        story.write(Stage(restore=restore, items=(extra,), begins=True))
    story.write(Sweep(limit=1))
    other = sorted({*TABLES.values(), OBJECTS})
    story.write(
        Stage(restore=RESTORE, items=tuple(_put_aside(b"kept %d" % number) for number in range(2))),
        Switch(restore=RESTORE, carried=tuple(other)),
    )
    agreed = story.history.last.index
    story.write(_put(b"never committed 1"))
    story.write(_put(b"never committed 2"))
    story.step(committed=agreed, stored=stored)
    dropped = story.history.truncate(agreed)
    story.epoch_of(2, c)
    story.append(Open(story.infos(a, b, c), (b, c), awaits=(b,)))
    story.append(SetChange((a, b, c)))
    agreed = story.history.last.index
    story.write(_put(b"not committed yet"))
    story.step(committed=agreed, stored=dropped[0].index - 1, dropped=dropped, promised=story.epoch, diverged=True)
    story.epoch_of(3, a)
    kept = story.made(Open(story.infos(a, b, c), (a, b)))
    story.step(committed=agreed, stored=story.history.last.index, promised=Epoch(4, c), kept=kept)
    story.engine.note_stop("boot of a test", 12.5)

    outgoing = story.engine.send()
    with (directory / "snapshot.bin").open("wb") as file:
        while (chunk := outgoing.next()) is not None:
            file.write(chunk)
    (directory / "snapshot.sha256").write_text(outgoing.hash.hex() + "\n")
    story.engine.release(outgoing)
    story.engine.close()
    return story


def write_archive(directory: Path, hsm: HsmState) -> None:
    """What a backup makes of the store that was written."""
    assert hsm.cluster is not None
    engine = Disk(directory / "store")
    engine.load()
    read = engine.read_items()
    key, wrapped = archive_keys.new_key(hsm.cluster, ARCHIVE, hsm.cluster.smk[-1].generation)
    header = archives.Header(
        archives.FORMAT, ARCHIVE, hsm.cluster.id, hsm.cluster.label, INSTANCE, hsm.cluster.newest_smk().generation,
        wrapped, archives.new_prefix(), 1024, NOW, read.after, "member-a", lnh_common.VERSION,
    )  # fmt: skip
    with (directory / "archive.lnhb").open("wb") as file:
        writer = archives.Writer(file.write, header, key)
        while (chunk := read.outgoing.next()) is not None:
            writer.add(chunk)
        manifest = writer.finish(read.counts)
        writer.close(manifest, archive_keys.seal_manifest(hsm.cluster, writer.header_bytes, manifest))
    engine.release(read.outgoing)
    engine.close()


def write_channel(directory: Path, hsm: HsmState) -> None:
    cluster = hsm.cluster
    assert cluster is not None
    seed = cluster.channel[-1]
    public = channel.channel_public_bytes(Purpose.CHANNEL.derive(seed.seed))
    statement = channel.Statement(
        channel.FORMAT, cluster.id, cluster.label, seed.epoch, public, seed.end, cluster.member, b"m" * 32
    )
    encoded, signature = statement.sign(Ed25519PrivateKey.from_private_bytes(cluster.identity))
    client_key = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
    login = channel.Envelope(NOW, 10_000, NEW_SESSION, 0, {"credentials": []})
    grant = Grant(Role.KRCO, "", KEYRING, b"g" * 16)
    token = Token(CHANNEL_SECRET, NEW_SESSION, 1_700_000_000, 1_700_000_900, CLIENT, (grant,), KEYRING_KEY, INSTANCE)
    carried_token = seal_token(token, cluster.id, seed.epoch, seed.seed)
    keys = channel.SessionKeys.derive(CHANNEL_SECRET, carried_token)
    sign = channel.Envelope(NOW, 10_000, NEW_SESSION, 5, {"handle": HANDLE, "mechanism": 4164, "data": b"data"})
    request = channel.seal_request(keys, SIGN, sign)
    refused = errors.ObjectUnknown("no such object", {"handle": HANDLE.hex()})
    keyring = KeyringKeys.derive(KEYRING_KEY, cluster.id, KEYRING)
    frames = {
        "statement": encoded,
        "signature": signature,
        "login": channel.seal_credential(LOGIN, login, statement, CHANNEL_SECRET, CLIENT, client_key),
        "token": carried_token,
        "request": request,
        "reply": channel.seal_reply(keys, SIGN, request, {"data": b"signature"}),
        "error": channel.seal_reply(keys, SIGN, request, refused),
        "unsealed error": wire.error_frames(SIGN, refused)[2],
        "session object": keyring.seal_for_session(NEW_SESSION, HANDLE, OBJECT, VALUE),
    }
    for kind in wire.Kind:
        header = wire.request("key.sign", 2**40 + kind, 10_000, route=KEYRING, kind=kind)
        frames[f"header {kind.name}"] = header.pack()
    _write_json(directory / "channel.json", {name: frame.hex() for name, frame in frames.items()})


def store_messages(story: Log) -> list[Any]:
    """One of each, and of those that hold entries or orders one that a store would act on."""
    last, opening = story.history.last, story.made(Open(story.infos(*story.ids), story.ids))
    entries = tuple(story.history.entries)
    base, (_, b, c), commit = story.history.base, story.ids, None
    for entry in entries:
        content = entry.content()
        commit = content.commit if isinstance(content, Write) else commit
    assert commit is not None
    orders: list[messages.Order] = [
        commit, messages.SetMember(story.infos(b)[0]), messages.RemoveMember(b), messages.Promote(b),
        messages.SetLeaseSettings(LeaseSettings()), messages.SetDoor(b, b * 2), messages.CreateGroup("group", REQUEST),
        messages.DeleteGroup("group", REQUEST), messages.MoveMember(b, "group", REQUEST), messages.SetFailover(manual=True),
    ]  # fmt: skip
    special = [
        messages.Append(story.epoch, base.position, entries, base.position.index),
        messages.Fetched(story.epoch, base.position, entries),
        messages.Keep(opening),
        messages.Report(
            story.epoch, Epoch(9, c), last, base.position, story.infos(*story.ids), story.ids, 1500,
            story.history.outline(), opening, True,
        ),
        *(messages.Forward.of(story.epoch, 3, order) for order in orders),
        messages.Forwarded(3, 9, (41, "no such object", {"advice": "none"}), 9),
        messages.Expelled(Removed(b, story.epoch, 9, story.infos(b)[0])),
    ]  # fmt: skip
    kinds = {type(each) for each in special}
    return special + [sample(kind) for kind in carried.STORE_MESSAGES if kind not in kinds]


def write_messages(directory: Path, story: Log) -> None:
    said: dict[str, list[Any]] = {}
    said["stores"] = [_said(type(each).__name__, each) for each in store_messages(story)]
    for name, operations in (("members", carried.PEER_OPERATIONS), ("clients", carried.CLIENT_OPERATIONS)):
        said[name] = [_said(body, sample(kind)) for body, kind in carried.bodies(operations).items()]
    said["errors"] = [{"code": code, "name": kind.__name__} for code, kind in sorted(errors.ERRORS.items())]
    _write_json(directory / "messages.json", said)


def _said(name: str, message: Any) -> dict[str, Any]:
    return {"name": name, "cbor": codec.encode(message).hex(), "says": plain(message)}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    directory = HERE / lnh_common.VERSION.rpartition(".")[0]
    if directory.exists():
        sys.exit(f"{directory} is there: what a version wrote is never written again")
    with TemporaryDirectory() as scratch, patch.object(limits, "DUPLICATE_RECORDS", 4):
        made = Path(scratch) / "made"
        (made / "store").mkdir(parents=True)
        hsm = state()
        write_hsm(made, hsm)
        story = write_store(made, hsm)
        write_archive(made, hsm)
        write_channel(made, hsm)
        write_messages(made, story)
        said = carried.read(made, Path(scratch))
        assert said["hsm"]["state"] == plain(hsm), "what was written is read"
        assert said["store"]["durable"]["entries"] == plain(tuple(story.history.entries)), "and its log"
        assert set(said["store"]["records"]) == {kind.__name__ for kind in TABLES}, "records of every kind"
        _write_json(made / "expected.json", said)
        shutil.copytree(made, directory)


if __name__ == "__main__":
    main()
