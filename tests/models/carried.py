"""What one version of the product leaves to the next: read by the code of now, and said as plain JSON.

`tests/data/make.py` writes a version's data; `tests/unit/test_upgrade_data.py` reads it. docs/formats.md has the formats.
"""

from __future__ import annotations

import enum
import shutil
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from lnh_common import errors
from lnh_common.messages import (
    admin as _admin,  # noqa: F401  # enters its operations
)
from lnh_common.messages import (
    audit as _audit,  # noqa: F401  # the same
)
from lnh_common.messages import backup, membership, objects, overview, session, store
from lnh_common.messages import (
    smk as _smk,  # noqa: F401  # enters its operations
)
from lnh_common.messages.base import OPERATIONS, Message, Operation, Seal
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.wire import archives, channel, codec
from lnh_common.wire import frames as wire
from lnh_services import archived
from lnh_services.hsm.appliance.state import ApplianceFile, HsmState, StateFile
from lnh_services.hsm.audit import trail as audit
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.auth.tokens import open_token, token_epoch
from lnh_services.hsm.backup import archive_keys
from lnh_services.hsm.crypto.argon2 import derive
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import TABLES
from lnh_services.store.disk import dropped
from lnh_services.store.disk.items import ItemStorage
from lnh_services.store.disk.snapshots import CHUNK_BYTES
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log.entries import ClusterId
from lnh_services.store.net import transfer
from lnh_services.store.replication import messages
from lnh_services.store.replication.messages import Install

T = TypeVar("T")

ACTIVATION: Final = b"activation secret of a test"
SO_PASSWORD: Final = "security officer of a test"
KEYRING: Final = b"K" * 16
KEYRING_KEY: Final = b"k" * 32
INSTANCE: Final = b"I" * 16
HANDLE: Final = b"H" * 16
CHANNEL_SECRET: Final = b"S" * 32
TABLE: Final = "t"
CLIENT: Final = b"c" * 16
OLD_SESSION: Final = b"o" * 16
NEW_SESSION: Final = b"n" * 16
# Forgotten, refused, acted, never made.
REQUESTS: Final = (
    (CLIENT, OLD_SESSION, 1),
    (CLIENT, NEW_SESSION, 1),
    (CLIENT, NEW_SESSION, 2),
    (CLIENT, NEW_SESSION, 99),
)

OBJECT: Final[dict[Attribute, Any]] = {
    Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES, Attribute.LABEL: "payments",
    Attribute.ID: b"\x01",
}  # fmt: skip

OF_PATTERN: Final = {backup._NAME: "sample.lnhb"}

# Classes and fields that have another name today than in the data of the versions before: by place or by tag, not by name.
NAMES_BEFORE: Final = {
    "Configuration": "Standing",
    "EndpointView": "WayView",
    "Endpoints": "Ways",
    "FailedAttempts": "Guessed",
    "LeaseSettings": "Terms",
    "SetLeaseSettings": "SetTerms",
    "configuration": "standing",
    "candidate": "opener",
    "endpoints": "ways",
    "lease_settings": "terms",
}

STORE_MESSAGES: Final[tuple[type[Any], ...]] = (*get_args(messages.Message), *get_args(transfer.Transfer))
PEER_OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = tuple(
    each for module in (membership, overview) for name, each in vars(module).items() if name.startswith("PEER_")
)
CLIENT_OPERATIONS: Final = tuple(
    each for each in OPERATIONS.values() if each.seal is not Seal.NONE or each is OPERATIONS[session.HELLO.name]
)
SIGN: Final = wire.request(objects.SIGN.name, 41, 10_000, route=KEYRING)
LOGIN: Final = wire.request(session.LOGIN.name, 40, 10_000)


def bodies(operations: tuple[Operation[Any, Any], ...]) -> dict[str, type[Message]]:
    """Requests and replies of operations, by what they are called in a version's data."""
    named = {f"{each.name} request": each.request for each in operations}
    return named | {f"{each.name} reply": each.reply for each in operations}


# --- plain


def name_before(name: str) -> str:
    """What the data of the versions before calls a class or field."""
    return NAMES_BEFORE.get(name, name)


def plain(value: Any) -> Any:
    """The value as JSON: bytes as hexadecimal after `0x`, a structure as its fields and what it `is`."""
    match value:
        case errors.LnhError():
            return {"is": type(value).__name__, "error": plain(value.to_wire())}
        case msgspec.Struct():
            fields = {name_before(name): plain(field) for name, field in msgspec.structs.asdict(value).items()}
            return {"is": name_before(type(value).__name__), **fields}
        case enum.Enum():
            return plain(value.value)
        case bytes():
            return "0x" + value.hex()
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case _:
            assert value is None or isinstance(value, (bool, int, float, str)), f"{type(value)} is not plain"
            return value


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where `found` does not say what was expected; a field that only it has is a later version's, and none."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = expected.keys() - {"is"}  # what a class is called here is no format
        missing = [f"{where}.{name} is missing" for name in sorted(names - found.keys())]
        shared = sorted(names & found.keys())
        return missing + [
            line for name in shared for line in differences(expected[name], found[name], f"{where}.{name}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for at, (one, other) in pairs for line in differences(one, other, f"{where}[{at}]")]
    return [] if type(expected) is type(found) and expected == found else [f"{where} is {found!r}, not {expected!r}"]


# --- samples


def sample(kind: type[T]) -> T:
    """A value of this type with every field filled, the same each time."""
    return codec.convert(_sample(msgspec.inspect.type_info(kind), kind.__name__), kind)


def _sample(info: Any, name: str) -> Any:
    match info:
        case msgspec.inspect.Metadata():
            return _sample(info.type, name)
        case msgspec.inspect.StructType():
            filled = {field.encode_name: _sample(field.type, name_before(field.name)) for field in info.fields}
            if info.array_like:
                return [*([info.tag] if info.tag is not None else []), *filled.values()]
            return filled if info.tag_field is None else {info.tag_field: info.tag, **filled}
        case msgspec.inspect.NamedTupleType():
            return [_sample(field.type, name_before(field.name)) for field in info.fields]
        case msgspec.inspect.UnionType():
            return _sample(next(each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)), name)
        case msgspec.inspect.BytesType():
            size = info.min_length or min(len(name), info.max_length or len(name))
            return (name.encode() * size)[:size]
        case msgspec.inspect.StrType() if info.pattern in OF_PATTERN:
            return OF_PATTERN[info.pattern]
        case msgspec.inspect.StrType():
            return (name * (info.min_length or 1))[: info.max_length]
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType():
            return min(max(7, info.ge or 0), info.le if info.le is not None else 7)
        case msgspec.inspect.FloatType():
            return 0.5
        case msgspec.inspect.EnumType():
            return next(iter(info.cls)).value
        case msgspec.inspect.LiteralType():
            return info.values[0]
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return [_sample(info.item_type, name)] * max(1, info.min_length or 1)
        case msgspec.inspect.TupleType():
            return [_sample(each, name) for each in info.item_types]
        case msgspec.inspect.DictType():
            return {_sample(info.key_type, name): _sample(info.value_type, name)}
        case msgspec.inspect.AnyType() | msgspec.inspect.CustomType():
            return b"any"
        case _:
            raise AssertionError(f"no sample of {info}")


# --- reading


def read(version: Path, scratch: Path) -> dict[str, Any]:
    """What the data of one version says, read with the code of now; files are copied to `scratch` first."""
    copy = scratch / "copy"
    shutil.copytree(version, copy)
    for path in copy.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    state, hsm = _read_hsm(copy)
    said = {"hsm": hsm, "store": _read_store(copy, scratch, state), "channel": _read_channel(copy, state)}
    if (copy / "archive.lnhb").exists():
        said["archive"] = _read_archive(copy / "archive.lnhb", state)
    return said


def _read_archive(path: Path, state: HsmState) -> dict[str, Any]:
    assert state.cluster is not None
    with path.open("rb") as file:
        about = archives.check_copy(file)
        key = archive_keys.open_archive(state.cluster, about.header_bytes, about.manifest_bytes, about.seal)
        rows = [
            row
            for batch in archived.batches(archives.plaintext(file, about, key), about.manifest.items)
            for row in batch
        ]
    return {"header": plain(about.header), "manifest": plain(about.manifest), "rows": plain(rows)}


def _read_hsm(copy: Path) -> tuple[HsmState, dict[str, Any]]:
    sealed = StateFile(copy / "hsm.state").read()
    assert sealed is not None
    state = sealed.open(derive(sealed.cover.derivation(ACTIVATION)))
    trail = copy / "audit.jsonl"
    said = {
        "cover": plain(sealed.cover),
        "state": plain(state),
        "so_password": state.so.password.is_from(derive(state.so.password.derivation(SO_PASSWORD))),
        "appliance": plain(ApplianceFile(copy / "appliance.cbor").read()),
        "guesses": plain(OfflineAttempts(copy / "guesses.cbor").all()),
        "audit": plain(audit.verify(trail, state.identity_public())),
        "audit_lines": plain(audit.page(trail, 0, 1000)),
        "segments": [path.name for path in audit.segments(trail)],
    }
    return state, said


def _read_store(copy: Path, scratch: Path, state: HsmState) -> dict[str, Any]:
    assert state.cluster is not None
    engine = Disk(copy / "store")
    found = engine.load()
    assert found is not None
    durable, stop = found
    said = {"durable": plain(durable), "stop": plain(stop), **_read_items(engine, state)}
    said["dropped"] = [plain(each.saved) for each in dropped.find(copy / "store")]
    engine.close()

    other = Disk(scratch / "empty")
    shutil.copytree(copy / "store", scratch / "empty")
    other.load()
    incoming = other.receive(ClusterId(state.cluster.id))
    stream = (copy / "snapshot.bin").read_bytes()
    for at in range(0, len(stream), CHUNK_BYTES):
        incoming.take(stream[at : at + CHUNK_BYTES])
    base = incoming.finish(bytes.fromhex((copy / "snapshot.sha256").read_text()))
    other.install(Install(1, 1, base, aside=False, dropped=()), incoming)
    other.close()
    installed = Disk(scratch / "empty")
    assert installed.load() is not None
    said["snapshot"] = {"base": plain(base), **_read_items(installed, state)}
    installed.close()
    return said


def _read_items(engine: Disk, state: HsmState) -> dict[str, Any]:
    """Items as they lie there, what the HSM makes of them, and what is known of earlier requests."""
    assert state.cluster is not None
    records = state.cluster.records(INSTANCE)
    keys = KeyringKeys.derive(KEYRING_KEY, state.cluster.id, KEYRING)
    with engine._reading() as reader:
        items = list(reader.everything())
    assert engine._reader is not None
    storage = ItemStorage(engine._reader)
    opened: dict[str, Any] = {}
    for kind in TABLES:
        key = records.key_of(kind, kind.__name__.encode())
        item = engine.get(key, body=True)
        if item is None:
            continue  # a kind that the version did not have; `make.py` sees to it that its own has all
        opened[kind.__name__] = plain(records.read(kind, item))
    thing = engine.get(keys.key(HANDLE), body=True)
    assert thing is not None
    attributes, value = keys.read(thing)
    scopes = sorted({(item.key.table, item.key.scope) for item in items})
    tags = sorted({(item.key.table, item.key.scope, tag) for item in items for tag in item.tags})
    return {
        "items": plain(items),
        "records": opened,
        "object": {"attributes": plain({int(name): each for name, each in attributes.items()}), "value": plain(value)},
        "tagged": [[table, *plain([scope, tag, _tagged(engine, table, scope, tag)])] for table, scope, tag in tags],
        "counts": [[table, plain(scope), engine.count(table, scope)] for table, scope in scopes],
        "answers": [plain([*request, _recalled(engine, *request)]) for request in REQUESTS],
        "mark": plain(storage.mark(CLIENT, OLD_SESSION)),
    }


def _tagged(engine: Disk, table: str, scope: bytes, tag: bytes) -> list[bytes]:
    items, _ = engine.scan(store.Scan(table=table, scope=scope, tags=(tag,)))
    return [item.key.id for item in items]


def _recalled(engine: Disk, client: bytes, session_id: bytes, sequence: int) -> Any:
    answer = engine.recall(client, session_id, sequence)
    return "forgotten" if isinstance(answer, errors.OutcomeUnknown) else answer


def _read_channel(copy: Path, state: HsmState) -> dict[str, Any]:
    """What a client said and was answered under the channel of the state's cluster."""
    assert state.cluster is not None
    frames = {
        name: bytes.fromhex(each) for name, each in msgspec.json.decode((copy / "channel.json").read_bytes()).items()
    }
    seed, cluster = state.cluster.channel[-1], state.cluster.id
    identity = state.cluster.identity_public()
    private = channel.channel_private_key(Purpose.CHANNEL.derive(seed.seed))
    login = channel.open_credential(LOGIN, frames["login"], cluster, private)
    epoch, sealed = token_epoch(frames["token"])
    keys = channel.SessionKeys.derive(CHANNEL_SECRET, frames["token"])
    return {
        "headers": [plain(wire.Header.parse(frames[f"header {kind.name}"])) for kind in wire.Kind],
        "statement": plain(channel.Statement.verify(frames["statement"], frames["signature"], identity)),
        "login": plain(login),
        "token": plain(open_token(sealed, cluster, epoch, seed.seed)),
        "request": plain(channel.open_request(keys, SIGN, frames["request"])),
        "reply": plain(channel.open_answer(keys, SIGN, frames["request"], frames["reply"])),
        "error": plain(channel.open_answer(keys, SIGN, frames["request"], frames["error"])),
        "unsealed error": plain(wire.parse_error(frames["unsealed error"])),
        "session object": plain(_session_object(cluster, frames["session object"])),
    }


def _session_object(cluster: bytes, sealed: bytes) -> Any:
    keys = KeyringKeys.derive(KEYRING_KEY, cluster, KEYRING)
    attributes, value = keys.open_for_session(NEW_SESSION, HANDLE, sealed)
    return {int(name): each for name, each in attributes.items()}, value
