"""Every decoder that somebody outside a process reaches, with valid samples: what `tests/property/test_decoders.py` feeds.

A row names the functions of the code base that it goes through, so that a decoder without a row is noticed.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, get_args

import cbor2
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)

from lnh.configuration import Configuration
from lnh.objects import certificates, jwk, key_files
from lnh_common import etcd
from lnh_common.bus import intake, zap
from lnh_common.errors import (
    ArchiveInvalid,
    ArgumentInvalid,
    CertificateInvalid,
    ChannelInvalid,
    ConfigurationInvalid,
    DataLength,
    KeyFileInvalid,
    LimitReached,
    LnhError,
    MalformedMessage,
    NameUnknown,
    PassphraseIncorrect,
    PasswordIncorrect,
    SealBroken,
    TokenUnknown,
    UnsupportedVersion,
)
from lnh_common.messages import store
from lnh_common.messages.base import OPERATIONS
from lnh_common.messages.hsm import SmkGeneration
from lnh_common.messages.store import Item, Key, MemberInfo
from lnh_common.pkcs11.attributes import Attribute, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import Mechanism, parse_parameters
from lnh_common.wire import archives, bundles, channel, codec, frames, shares, smk_backups
from lnh_common.wire.audit import ChainBroken, HeadLine, parse_line
from lnh_pkcs11 import fields, server
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.ways import Way
from lnh_rest import decoding as rest_decoding
from lnh_rest.shapes import KeyringLogin, ObjectQuery
from lnh_services import archived, configuration
from lnh_services.hsm.appliance.partitions import FORMAT as PARTITION_FORMAT
from lnh_services.hsm.appliance.partitions import PartitionFiles
from lnh_services.hsm.appliance.state import ApplianceFile, Cluster, StateFile
from lnh_services.hsm.audit import anchor, trail
from lnh_services.hsm.auth import tokens
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.cluster import join_protocol, smk_backup, smk_generations
from lnh_services.hsm.crypto import sealing, tpm
from lnh_services.hsm.crypto import shares as shares_of
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import TABLES, ClusterRecord, HsmRecord
from lnh_services.store.disk import dropped as divergent
from lnh_services.store.disk import items
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.etcd import place as at_etcd
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Entry, MemberId, Milliseconds, Position
from lnh_services.store.net import peers
from lnh_services.store.replication import messages
from models import carried, gateway
from models.archives import written

DATA: Final = Path(__file__).parents[1] / "data"
Decode = Callable[[bytes], object]
_HEADER: Final = frames.request("key.sign", 7, 1000, route=bytes(16))
_CLUSTER: Final = b"C" * 16
_SECRET: Final = b"S" * 32


@dataclass(frozen=True)
class Decoder:
    """One row.

    Args:
        samples: valid encodings, each with what decodes it.
        refusals: all that may be raised.
        covers: the functions it goes through that decode, `module:function`.
        slow: it goes through a file, so the long run gives it a tenth of the inputs.
    """

    name: str
    samples: Sequence[tuple[bytes, Decode]]
    refusals: tuple[type[Exception], ...]
    covers: tuple[str, ...]
    slow: bool = False


def _messages(whose: str) -> Iterable[tuple[str, bytes]]:
    for version in ("0.1", "0.2"):
        for each in json.loads((DATA / version / "messages.json").read_text())[whose]:
            yield each["name"], bytes.fromhex(each["cbor"])


def _bodies() -> list[tuple[bytes, Decode]]:
    kinds = carried.bodies(carried.PEER_OPERATIONS) | carried.bodies(carried.CLIENT_OPERATIONS)
    found = [
        (data, partial(codec.decode_as, kind=kinds[name]))
        for whose in ("members", "clients")
        for name, data in _messages(whose)
        if name in kinds
    ]
    local = [
        (codec.encode(carried.sample(kind)), partial(codec.decode_as, kind=kind))
        for row in OPERATIONS.values()
        for kind in (row.request, row.reply)
    ]
    return [*found, *local]


def _in_file(read: Callable[[Path], object]) -> Decode:
    place = tempfile.TemporaryDirectory(prefix="lnh-decoders-")  # for as long as what decodes lives

    def decode(data: bytes) -> object:
        path = Path(place.name) / "file"
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)

    return decode


def _channel_rows() -> list[Decoder]:
    identity = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = identity.public_key().public_bytes_raw()
    statement = channel.Statement(
        channel.FORMAT,
        _CLUSTER,
        "prod",
        1,
        channel.channel_public_bytes(Purpose.CHANNEL.derive(bytes(32))),
        9,
        bytes(16),
        bytes(32),
    )
    encoded, _ = statement.sign(identity)
    private = channel.channel_private_key(Purpose.CHANNEL.derive(bytes(32)))
    info = channel._info(_CLUSTER, 1, _HEADER)
    envelope = [1, 1000, bytes(16), 1, {"name": "a"}]
    inner = codec.encode([_SECRET, bytes(16), b"", envelope])
    outer = codec.encode([inner, b""])

    def credential(data: bytes) -> object:
        sealed = channel._SUITE.encrypt(data, channel.channel_public_key(statement.channel_key), info)
        return channel.open_credential(_HEADER, (1).to_bytes(channel._EPOCH, "big") + sealed, _CLUSTER, private)

    keys = channel.SessionKeys.derive(_SECRET, b"token")
    bound = _HEADER.bound(frames.Kind.REQUEST, keys.token_hash)
    reply = channel._reply_associated(keys, _HEADER, b"request")

    def request(data: bytes) -> object:
        return channel.open_request(keys, _HEADER, channel._seal(keys.request_mac, data, bound))

    def answer(data: bytes) -> object:
        return channel.open_answer(keys, _HEADER, b"request", channel._seal(keys.reply_mac, data, reply))

    error = LnhError("no", {"a": 1}).to_wire()
    return [
        Decoder(
            "channel statement",
            [(encoded, lambda data: channel.Statement.verify(data, identity.sign(data), public))],
            (ChannelInvalid, MalformedMessage, LnhError),
            ("lnh_common.wire.channel:verify",),
        ),
        Decoder(
            "credential messages",
            [
                (outer, credential),
                (inner, lambda data: credential(codec.encode([data, b""]))),
                (bytes(1200), lambda data: channel.open_credential(_HEADER, data, _CLUSTER, private)),
            ],
            (ChannelInvalid, MalformedMessage),
            ("lnh_common.wire.channel:open_credential",),
        ),
        Decoder(
            "session messages",
            [
                (codec.encode(envelope), request),
                (bytes(100), lambda data: channel.open_request(keys, _HEADER, data)),
                (codec.encode([0, {"signature": b"s"}]), answer),
                (codec.encode([7, "no", {}]), answer),
            ],
            (ChannelInvalid, MalformedMessage),
            ("lnh_common.wire.channel:open_request", "lnh_common.wire.channel:open_answer"),
        ),
        Decoder(
            "unsealed errors",
            [(codec.encode(error), frames.parse_error)],
            (MalformedMessage,),
            ("lnh_common.wire.frames:parse_error",),
        ),
    ]


def _tokens() -> Decoder:
    place = sealing.Place(sealing.Kind.TOKEN, cluster=_CLUSTER, version=1)
    key = Purpose.TOKEN.derive(bytes(32))
    token = tokens.Token(_SECRET, bytes(16), 1, 2, bytes(16), (), b"", bytes(16))
    sealed = tokens.seal_token(token, _CLUSTER, 1, bytes(32))
    plain = sealing.unseal(key, tokens.token_epoch(sealed)[1], place)
    return Decoder(
        "session tokens",
        [
            (sealed, lambda data: tokens.open_token(tokens.token_epoch(data)[1], _CLUSTER, 1, bytes(32))),
            (plain, lambda data: tokens.open_token(sealing.seal(key, data, place), _CLUSTER, 1, bytes(32))),
        ],
        (TokenUnknown,),
        (
            "lnh_services.hsm.auth.tokens:token_epoch",
            "lnh_services.hsm.auth.tokens:open_token",
            "lnh_services.hsm.crypto.sealing:unseal",
        ),
    )


def _etcd_row() -> Decoder:
    lead = at_etcd.Lead(3, MemberId(b"M" * 16), b"incarnation")
    batch = at_etcd.pack((Entry(lead.epoch, 7, Milliseconds(1), bytes(32), _entries()[0]["payload"], bytes(32)),))
    head = Position(lead.epoch, 7, bytes(32))
    return Decoder(
        "what a cluster keeps in etcd",
        [
            (codec.encode(lead), lambda data: at_etcd.Place(lead=data).leads()),
            (codec.encode(head), lambda data: at_etcd.Place(head=data).ends()),
            (
                codec.encode(at_etcd.Failover(manual=True, number=1)),
                lambda data: at_etcd.Place(failover=data).is_manual(),
            ),
            (batch, at_etcd.unpack),
        ],
        (MalformedMessage,),
        tuple(f"lnh_services.store.etcd.place:{name}" for name in ("leads", "ends", "is_manual", "unpack")),
    )


def _store_rows() -> list[Decoder]:
    words = [(name, data) for name, data in _messages("stores")]
    of_replica = {kind.__name__ for kind in get_args(messages.Message)}

    def heard(operation: str) -> Decode:
        header = frames.request(operation, 0, 0, kind=frames.Kind.CAST).pack()
        return lambda data: peers.read([header, b"", data])

    known = [(data, heard(peers._REPLICA if name in of_replica else peers._SNAPSHOT)) for name, data in words]
    payloads = [(entry["payload"], entries._decode) for entry in _entries()]
    snapshot = (DATA / "0.2" / "snapshot.bin").read_bytes()
    hash_ = bytes.fromhex((DATA / "0.2" / "snapshot.sha256").read_text())
    cluster = ClusterId(_snapshot_cluster(snapshot))

    def receive(data: bytes) -> object:
        with tempfile.TemporaryDirectory(prefix="lnh-decoders-") as name:
            incoming = Disk(Path(name)).receive(cluster)
            try:
                incoming.take(data)
                return incoming.finish(hash_)
            finally:
                incoming.discard()

    dropped = next((DATA / "0.2" / "store").glob("divergent-*")).read_bytes()
    return [
        Decoder(
            "messages between stores",
            known,
            (MalformedMessage, UnsupportedVersion, SealBroken),
            ("lnh_services.store.net.peers:read",),
        ),
        Decoder(
            "entries of the log", payloads, (MalformedMessage, SealBroken), ("lnh_services.store.log.entries:_decode",)
        ),
        Decoder(
            "snapshots",
            [(snapshot, receive)],
            (SealBroken,),
            ("lnh_services.store.disk.snapshots:_take_record",),
            slow=True,
        ),
        Decoder(
            "files of dropped entries",
            [(dropped, _in_file(divergent.read))],
            (SealBroken, LnhError),
            ("lnh_services.store.disk.dropped:read",),
            slow=True,
        ),
        Decoder(
            "tags of items",
            [(items.pack_tags((b"a", b"b" * 32)), items.parse_tags), (b"\x01a", archived.parse_tags)],
            (SealBroken, ArchiveInvalid),
            ("lnh_services.store.disk.items:parse_tags", "lnh_services.archived:parse_tags"),
        ),
    ]


@cache
def _entries() -> list[dict[str, bytes]]:
    found = []
    for _, data in _messages("stores"):
        stack: list[Any] = [cbor2.loads(data)]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                if len(value) >= 6 and isinstance(value[4], bytes) and value[4][:1] >= b"\x80":
                    found.append({"payload": value[4]})
                stack += value
            elif isinstance(value, dict):
                stack += value.values()
    payloads = []
    for each in found:
        try:
            entries._decode(each["payload"])
        except LnhError:
            continue
        payloads.append(each)
    assert payloads, "the messages of stores carry entries"
    return payloads


def _snapshot_cluster(snapshot: bytes) -> bytes:
    length = int.from_bytes(snapshot[:4], "big")
    header = cbor2.loads(snapshot[4 : 4 + length])
    return next(each for each in header if isinstance(each, bytes) and len(each) == 16)


def _joining() -> Decoder:
    seed, other = b"a" * 32, b"b" * 32
    nonce = bytes(32)
    occasion = join_protocol.Occasion(nonce, join_protocol.Identity.of(seed))
    info = MemberInfo(id=bytes(16), name="B", host="127.0.0.1", port=7100, key=bytes(32))
    sealed = join_protocol.request(
        occasion, seed=other, nonce=nonce, member=info, product="0.2.0", domain_key=bytes(32)
    )
    private = channel.channel_private_key(Purpose.HSM_RECEIVE.derive(seed))
    inner = join_protocol._SUITE.decrypt(sealed, private, join_protocol._request_info(occasion))
    public = channel.channel_public_key(occasion.inviter.receive)

    def asked(data: bytes) -> object:
        return join_protocol.open_request(
            occasion, join_protocol._SUITE.encrypt(data, public, join_protocol._request_info(occasion)), seed
        )

    invitation = join_protocol.Invitation(
        join_protocol.INVITATION_FORMAT,
        nonce,
        _CLUSTER,
        "prod",
        9,
        "127.0.0.1",
        7100,
        bytes(32),
        join_protocol.Identity.of(seed),
    )

    def invited(data: bytes) -> object:
        return join_protocol.Invitation.parse(join_protocol.INVITATION_FORMAT + "\n" + base64.b64encode(data).decode())

    text = invitation.text().encode()
    packed = base64.b64decode("".join(text.decode().splitlines()[1:]))
    asker = join_protocol.open_request(occasion, sealed, seed)
    bundle = msgspec.structs.replace(carried.sample(join_protocol.Bundle), cluster=_CLUSTER)
    answer = join_protocol.reply(sealed, asker, bundle, seed=seed, domain_key=bytes(32))

    def answered(data: bytes) -> object:
        return join_protocol.open_reply(invitation, sealed, data, seed=other, nonce=nonce, domain_key=bytes(32))

    def sealed_answer(data: bytes) -> object:
        transcript = hashlib.sha256(sealed).digest()
        place = sealing.Place(sealing.Kind.JOINING, cluster=_CLUSTER, extra=transcript)
        within = codec.encode([_CLUSTER, sealing.seal(join_protocol._reply_key(bytes(32), nonce), data, place)])
        closed = join_protocol._SUITE.encrypt(
            within, channel.channel_public_key(asker.identity.receive), join_protocol._reply_info(transcript)
        )
        signing = Ed25519PrivateKey.from_private_bytes(Purpose.HSM_SIGN.derive(seed))
        return answered(
            codec.encode([join_protocol.FORMAT, closed, signing.sign(join_protocol._signed(transcript, closed))])
        )

    return Decoder(
        "joining",
        [
            (sealed, lambda data: join_protocol.open_request(occasion, data, seed)),
            (inner, asked),
            (text, lambda data: join_protocol.Invitation.parse(data.decode("utf-8", "replace"))),
            (packed, invited),
            (answer, answered),
            (codec.encode(bundle), sealed_answer),
        ],
        (ChannelInvalid, ArgumentInvalid, SealBroken, LnhError),
        (
            "lnh_services.hsm.cluster.join_protocol:open_request",
            "lnh_services.hsm.cluster.join_protocol:parse",
            "lnh_services.hsm.cluster.join_protocol:open_reply",
        ),
    )


def _smk_backup() -> Decoder:
    contents = carried.sample(smk_backup.Contents)
    cover = smk_backup.new_cover(contents, bytes(16), bytes(16), (8, 1, 1), 9)
    whole = smk_backup.sealed(contents, cover, bytes(32))
    text = whole.text().encode()
    packed = base64.b64decode("".join(text.decode().splitlines()[1:]))

    def parsed(data: bytes) -> object:
        return smk_backups.SmkBackup.parse(smk_backups.FORMAT + "\n" + base64.b64encode(data).decode())

    def within(data: bytes) -> object:
        sealed = sealing.seal(bytes(32), data, smk_backup._place(cover))
        return smk_backup.opened(smk_backups.SmkBackup(cover, sealed), bytes(32))

    return Decoder(
        "backups of the SMK",
        [
            (text, lambda data: smk_backups.SmkBackup.parse(data.decode("utf-8", "replace"))),
            (packed, parsed),
            (codec.encode(contents), within),
            (whole.sealed, lambda data: smk_backup.opened(smk_backups.SmkBackup(cover, data), bytes(32))),
        ],
        (ArgumentInvalid, PasswordIncorrect, SealBroken),
        ("lnh_common.wire.smk_backups:parse", "lnh_services.hsm.cluster.smk_backup:opened"),
    )


def _smk_generations() -> Decoder:
    """What is shared, as a store serves it, signed, and what another HSM sealed to this one."""
    identity = bytes(32)
    receives = channel.channel_public_bytes(Purpose.HSM_RECEIVE.derive(identity))
    public = Ed25519PrivateKey.from_private_bytes(identity).public_key()
    to = HsmRecord(member=_CLUSTER, sign=bytes(32), receive=receives)
    held = (SmkGeneration(generation=1, key=bytes(32)), SmkGeneration(generation=2, key=_SECRET))
    shared = smk_generations.share(_CLUSTER, held, [to], bytes(16), 9)
    put = smk_generations.put(shared, 0, identity)
    cluster = msgspec.structs.replace(carried.sample(Cluster), id=_CLUSTER, member=_CLUSTER, smk=held[:1])
    within = codec.encode([[each.generation, each.key] for each in held])

    def signed(head: bytes) -> object:
        body = Ed25519PrivateKey.from_private_bytes(identity).sign(smk_generations._signed(1, head))
        return smk_generations.read(Item(key=smk_generations.KEY, version=1, head=head, body=body), _CLUSTER, public)

    def served(body: bytes) -> object:
        item = Item(key=smk_generations.KEY, version=1, head=put.head, body=body)
        return smk_generations.read(item, _CLUSTER, public)

    def taken(sealed: bytes) -> object:
        mine = smk_generations.SealedFor(_CLUSTER, sealed)
        return smk_generations.take(msgspec.structs.replace(shared, sealed=(mine,)), cluster, identity)

    def opened(plain: bytes) -> object:
        info = smk_generations._info(_CLUSTER, 2, _CLUSTER)
        return taken(smk_generations._SUITE.encrypt(plain, channel.channel_public_key(receives), info))

    return Decoder(
        "generations of the SMK",
        [(put.head, signed), (put.body, served), (shared.sealed[0].sealed, taken), (within, opened)],
        (SealBroken,),
        ("lnh_services.hsm.cluster.smk_generations:read", "lnh_services.hsm.cluster.smk_generations:_opened"),
    )


def _share() -> Decoder:
    parts, handed = shares_of.split(bytes(32), 2, 3, bytes)
    first, second = handed[:2]

    def opened(data: bytes) -> object:
        return shares_of.combined(codec.decode_as(data, shares.Split), [first, second])

    return Decoder(
        "shares",
        [
            (first.text().encode(), lambda data: shares.Share.parse(data.decode("utf-8", "replace"))),
            (codec.encode(msgspec.to_builtins(parts, builtin_types=(bytes,))), opened),
        ],
        (ArgumentInvalid, MalformedMessage, SealBroken),
        ("lnh_common.wire.shares:parse", "lnh_common.wire.shares:_line"),
    )


def _archive_rows() -> list[Decoder]:
    whole = written(b"x" * 300, 3)
    about = archives.outline(io.BytesIO(whole))

    def rows(data: bytes) -> object:
        return list(archived.batches(iter([data[:100], data[100:]]), {"user": 1}))

    row = ["user", b"", b"id", 1, b"", b"head", b"body"]
    records = [[1, b"c" * 16, []], ["items", [row]], ["end", [1]]]
    plain = b"".join(len(packed).to_bytes(4, "big") + packed for packed in map(codec.encode, records))
    carried_ = (DATA / "0.2" / "archive.lnhb").read_bytes()
    return [
        Decoder(
            "archives",
            [
                (whole, lambda data: archives.outline(io.BytesIO(data))),
                (whole, lambda data: archives.check_copy(io.BytesIO(data))),
                (carried_, lambda data: archives.check_copy(io.BytesIO(data))),
                (whole, lambda data: list(archives.plaintext(io.BytesIO(data), about, bytes(32)))),
                (about.header_bytes, archives.parse_header),
                (about.manifest_bytes, archives.parse_manifest),
                (codec.encode([about.manifest_bytes, about.seal]), archives._parse_end),
                (plain, rows),
                *(
                    (packed, lambda data: rows(len(data).to_bytes(4, "big") + data))
                    for packed in map(codec.encode, records)
                ),
            ],
            (ArchiveInvalid,),
            (
                "lnh_common.wire.archives:parse_header",
                "lnh_common.wire.archives:parse_manifest",
                "lnh_common.wire.archives:_parse_end",
                "lnh_services.archived:_records",
            ),
        )
    ]


def _hsm_rows() -> list[Decoder]:
    lines = (DATA / "0.2" / "audit.jsonl").read_bytes().splitlines(keepends=True)
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = signer.public_key().public_bytes_raw()
    head = HeadLine(index=9, time=1, signer=public.hex(), signature="", previous=bytes(32).hex())
    head = msgspec.structs.replace(head, signature=signer.sign(head.signed()).hex())

    def anchored(data: bytes) -> object:
        return anchor.read(Item(key=Key(table="audit", id=bytes(16)), version=1, head=data), public)

    heads = [codec.encode(carried.sample(kind)) for kind in TABLES]
    kinds = list(TABLES)
    keys = KeyringKeys.derive(_SECRET, _CLUSTER, bytes(16))
    attributes = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: "a"}
    stored = keys.put(bytes(16), 0, attributes, b"value")

    def stored_object(data: bytes) -> object:
        return keys.read(Item(key=stored.key, version=1, head=data, body=stored.body))

    def session_object(data: bytes) -> object:
        return keys.open_for_session(bytes(16), bytes(16), data)

    template = codec.encode({0: 4, 3: "label", 0x102: b"id", 0x161: 32, 0x1: True})
    parameters = [(codec.encode({}), partial(_parameters, mechanism)) for mechanism in Mechanism]
    folder = tempfile.TemporaryDirectory(prefix="lnh-decoders-")

    def partition(data: bytes) -> object:
        path = Path(folder.name) / "partition-1.cbor"
        path.write_bytes(data)
        path.chmod(0o600)
        return PartitionFiles(Path(folder.name)).read("1")

    return [
        Decoder(
            "lines of an audit trail",
            [(line, lambda data: parse_line(data, None)) for line in lines] + [(line, trail._index) for line in lines],
            (ChainBroken,),
            ("lnh_common.wire.audit:parse_line", "lnh_services.hsm.audit.trail:_index"),
        ),
        Decoder(
            "anchored heads",
            [(codec.encode(head), anchored)],
            (SealBroken,),
            ("lnh_services.hsm.audit.anchor:read",),
        ),
        Decoder(
            "records",
            [
                *((head, partial(codec.decode_as, kind=kind)) for head, kind in zip(heads, kinds, strict=True)),
                (heads[kinds.index(ClusterRecord)], partial(codec.decode_as, kind=store.ClusterVersion)),
            ],
            (MalformedMessage,),
            (
                "lnh_services.hsm.records:read",
                "lnh_services.hsm.backup.restore:_taken",
                "lnh_services.hsm.backup.restore:_revoked",
                "lnh_services.hsm.backup.restore:_switch",
                "lnh_services.balancer.clients:_put",
                "lnh_services.backup.keeping:_read",
                "lnh_services.membership.procedures:_cluster_version",
            ),
        ),
        _smk_backup(),
        _smk_generations(),
        _share(),
        Decoder(
            "what a TPM's process is asked and says",
            [
                (codec.encode(said), partial(codec.decode_as, kind=type(said)))
                for said in (
                    tpm.Asked(tpm="device:/dev/tpmrm0", key=_SECRET, pcrs=(0, 7)),
                    tpm.Asked(tpm="device:/dev/tpmrm0", sealed=_SEALED_TO_TPM),
                    tpm.Answered(sealed=_SEALED_TO_TPM),
                    tpm.Answered(key=_SECRET),
                    tpm.Answered(cause=tpm.Cause.PCRS, said="0x99d"),
                )
            ],
            (MalformedMessage,),
            ("lnh_services.hsm.crypto.tpm:_ask", "lnh_services.hsm.crypto.tpm_process:main"),
        ),
        Decoder(
            "sealed values",
            [
                (stored.head, stored_object),
                (keys.seal_for_session(bytes(16), bytes(16), attributes, b"value"), session_object),
            ],
            (SealBroken, LnhError),
            (
                "lnh_services.hsm.crypto.sealing:unseal",
                "lnh_services.hsm.objects.stored:open_for_session",
                "lnh_services.hsm.objects.stored:read_attributes",
            ),
        ),
        Decoder(
            "templates and parameters",
            [(template, lambda data: parse_template(codec.decode_as(data, dict[int, Any]))), *parameters],
            (LnhError,),
            ("lnh_common.pkcs11.attributes:parse_template", "lnh_common.pkcs11.mechanisms:parse_parameters"),
        ),
        Decoder(
            "files of the HSM",
            [
                ((DATA / "0.2" / "hsm.state").read_bytes(), _in_file(lambda path: StateFile(path).read())),
                (_state_with_tpm(), _in_file(lambda path: StateFile(path).read())),
                ((DATA / "0.2" / "appliance.cbor").read_bytes(), _in_file(lambda path: ApplianceFile(path).read())),
                ((DATA / "0.2" / "guesses.cbor").read_bytes(), _in_file(lambda path: OfflineAttempts(path).all())),
                (codec.encode([PARTITION_FORMAT, "1", []]), partition),
            ],
            (SealBroken, LnhError),
            (
                "lnh_services.hsm.appliance.state:read",
                "lnh_services.hsm.auth.offline_attempts:__init__",
                "lnh_services.hsm.appliance.partitions:read",
            ),
            slow=True,
        ),
        Decoder(
            "settings",
            [
                (
                    b'name = "A"\nbase_port = 7100\n[timeouts]\nstop = 1000\n',
                    _in_file(lambda path: configuration.load(path, {})),
                ),
                (_CLIENT_TOML, _client_settings()),
                (_ENGINE_TOML, _in_file(lambda path: etcd.settings(etcd.read(path), str(path)))),
            ],
            (ConfigurationInvalid,),
            ("lnh_common.toml:parse",),
            slow=True,
        ),
    ]


_ENGINE_TOML: Final = b'[engine]\nkind = "etcd"\nendpoints = ["http://127.0.0.1:2379"]\nprefix = "lnh/"\n'
_SEALED_TO_TPM: Final = tpm.TpmSealed(b"\x00\x0b" + bytes(32), b"public" * 10, b"private" * 20, (0, 7))


def _state_with_tpm() -> bytes:
    cover = msgspec.structs.replace(StateFile(Path("hsm.state")).cover("label", bytes(32)), tpm=_SEALED_TO_TPM)
    return codec.encode([cover.plain(), bytes(100)])


_CLIENT_TOML: Final = b'[cluster.00]\nlabel = "prod"\nmember = "127.0.0.1:7100"\n'


def _client_settings() -> Decode:
    place = tempfile.TemporaryDirectory(prefix="lnh-decoders-")  # for as long as what decodes lives

    def decode(data: bytes) -> object:
        path = Path(place.name) / "client.toml"
        path.write_bytes(data)
        path.chmod(0o600)
        return Configuration(Path(place.name)).registrations()

    return decode


def _parameters(mechanism: Mechanism, data: bytes) -> object:
    return parse_parameters(mechanism, data)


def _wire_rows() -> list[Decoder]:
    header = _HEADER.pack()
    body = codec.encode({})
    served = frozenset(OPERATIONS)
    headers = [
        frames.request(name, number, 1000, route=bytes(16 * (number % 2))).pack()
        for number, name in enumerate(OPERATIONS)
    ]
    bundle = bundles.Bundle()
    for number in range(3):
        bundle.add(number.to_bytes(8, "big"), header, b"token", body)
    return [
        Decoder(
            "headers",
            [(each, frames.Header.parse) for each in headers],
            (MalformedMessage, UnsupportedVersion),
            ("lnh_common.wire.frames:_parse",),
        ),
        Decoder(
            "messages to a service",
            [
                *((each, lambda data: intake.read([data, b"", body], served)) for each in headers[:20]),
                (body, lambda data: intake.read([header, b"", data], served)),
                (body, lambda data: intake.read([header, data, body], served)),
            ],
            (),
            ("lnh_common.bus.intake:read", "lnh_common.bus.intake:salvage"),
        ),
        Decoder(
            "bundles",
            [(bundle.take(), lambda data: bundles.unpack([data]))],
            (MalformedMessage,),
            ("lnh_common.wire.bundles:unpack",),
        ),
        Decoder(
            "handshakes",
            [
                (
                    b"10.0.0.1",
                    lambda data: zap.answer([b"1.0", b"1", b"lnh", data, b"", b"CURVE", bytes(32)], zap.everyone),
                ),
                (bytes(32), lambda data: zap.answer([b"1.0", b"1", b"lnh", b"a", b"", b"CURVE", data], zap.everyone)),
                (b"1.0", lambda data: zap.answer([data] * (len(data) % 9), zap.everyone)),
            ],
            (),
            ("lnh_common.bus.zap:answer",),
        ),
        Decoder(
            "bodies of all operations",
            _bodies(),
            (MalformedMessage,),
            (
                "lnh_common.wire.codec:decode_as",
                "lnh_common.wire.codec:decode",
                "lnh_common.bus.blocking:_ask",
                "lnh_common.bus.client:ask",
                "lnh_common.bus.client:_receive_cast",
                "lnh.net.requests:_replied",
                "lnh_services.balancer.caller:receive",
                "lnh_services.balancer.peers:_heard",
                "lnh_services.balancer.service:_count_served",
                "lnh_services.hsm.worker.tasks:answers",
                "lnh_services.hsm.worker.loop:_answered",
                "lnh_services.hsm.worker.loop:_told",
                "lnh_services.hsm.worker.core:_serve_open",
            ),
        ),
    ]


@cache
def _file_rows() -> list[Decoder]:
    key, edwards = ec.derive_private_key(7, ec.SECP256R1()), Ed25519PrivateKey.from_private_bytes(bytes(32))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + dt.timedelta(days=1))
    certificate = builder.add_extension(x509.BasicConstraints(True, None), critical=True).sign(key, hashes.SHA256())
    asked = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    due = x509.CertificateRevocationListBuilder(name, begin, begin + dt.timedelta(days=1))
    crl = due.add_revoked_certificate(x509.RevokedCertificateBuilder(1, begin).build()).sign(key, hashes.SHA256())
    forms = [
        *(key.private_bytes(Encoding.DER, form, NoEncryption()) for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)),
        edwards.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        edwards.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        certificate.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM),
        pkcs7.serialize_certificates([certificate], Encoding.DER),
        pkcs12.serialize_key_and_certificates(b"a", key, certificate, None, NoEncryption()),
        jwk.of_public_key(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).encode(),
        b'{"keys":[{"kty":"oct","k":"AAECAwQFBgcICQoLDA0ODw"}]}',
    ]  # fmt: skip
    refusals = (KeyFileInvalid, PassphraseIncorrect, DataLength, LimitReached)
    return [
        Decoder(
            "files with keys",
            [(form, lambda data: key_files.read(data, lambda: "")) for form in forms],
            refusals,
            ("lnh.objects.jwk:parse",),
            slow=True,
        ),
        Decoder(
            "requests and revocation lists",
            [
                *((asked.public_bytes(form), certificates.read_request) for form in (Encoding.DER, Encoding.PEM)),
                *((crl.public_bytes(form), certificates.read_list) for form in (Encoding.DER, Encoding.PEM)),
            ],
            (CertificateInvalid,),
            (),
            slow=True,
        ),
    ]


def _rest_rows() -> list[Decoder]:
    """What a client of the REST service sends."""
    login = b'{"as":"keyring","keyring":"payments","role":"krco","password":"a password"}'
    return [
        Decoder(
            "bodies, queries and paths over HTTPS",
            [
                (login, partial(rest_decoding.body, kind=KeyringLogin)),
                (b"limit=10&label=a%20label", partial(rest_decoding.query, kind=ObjectQuery)),
                (b"/v1/keyrings/payments%2f/objects", rest_decoding.segments),
            ],
            (MalformedMessage, ArgumentInvalid, NameUnknown),
            ("lnh_rest.decoding:_json",),
        ),
    ]


def _gateway_rows() -> list[Decoder]:
    """What an application sends to the PKCS#11 gateway: each call of each way in, with samples of its fields."""

    def read(way: Way) -> Decode:
        def decode(data: bytes) -> object:
            call, at = server._call(data, way)
            return fields.read(call.fields(own=way.own)[0], data, way, at)

        return decode

    nothing: Any = None  # no request is answered

    def received(data: bytes) -> object:
        return server.Peer(server.Server(nothing), b"process").receive(data)

    frames_ = [body for way in Way for body in gateway.samples(way)]
    streams = [b"\2", b"\x4c\x01" + bytes(16)]
    framed = b"".join(struct.pack(">III", 16, 0, len(body)) + body for _, body in frames_[:20])
    return [
        Decoder(
            "requests of PKCS#11",
            [(body, read(way)) for way, body in frames_],
            (Refused,),
            ("lnh_pkcs11.server:_call",),
        ),
        Decoder(
            "frames of PKCS#11",
            [(first + framed, received) for first in streams],
            (server.NotSpoken,),
            ("lnh_pkcs11.server:_requests",),
            slow=True,
        ),
    ]


def decoders() -> tuple[Decoder, ...]:
    """The table."""
    return (
        *_wire_rows(), *_channel_rows(), _tokens(), *_store_rows(), _etcd_row(), _joining(), *_archive_rows(), *_hsm_rows(),
        *_file_rows(), *_gateway_rows(), *_rest_rows(),
    )  # fmt: skip
