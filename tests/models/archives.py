"""Small archives for tests, as the product writes them."""

from __future__ import annotations

import io

import lnh_common
from lnh_common.messages.hsm import ChannelSeed, SmkGeneration
from lnh_common.wire import archives
from lnh_common.wire.archives import Header, Writer
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.backup import archive_keys as keys

CHUNK = 64


def cluster(number: int = 1, generation: int = 1) -> Cluster:
    return Cluster(
        id=bytes((number,)) * 16,
        label="prod",
        member=b"m" * 16,
        partition="0",
        phase=Phase.CREATED,
        identity=b"i" * 32,
        smk=(SmkGeneration(generation=generation, key=bytes((number,)) * 32),),
        channel=(ChannelSeed(epoch=1, seed=b"s" * 32, end=1),),
    )


def written(
    plaintext: bytes,
    pieces: int = 1,
    id_: bytes = b"a" * 16,
    whose: Cluster | None = None,
    *,
    instance: bytes = b"n" * 16,
    index: int = 7,
    created: int = 1_700_000_000_000,
) -> bytes:
    whose = whose or cluster()
    key, wrapped = keys.new_key(whose, id_, whose.smk[-1].generation)
    header = Header(
        archives.FORMAT, id_, whose.id, whose.label, instance, whose.newest_smk().generation, wrapped,
        archives.new_prefix(), CHUNK, created, index, "A", lnh_common.VERSION,
    )  # fmt: skip
    file = io.BytesIO()
    writer = Writer(file.write, header, key)
    step = max(1, len(plaintext) // pieces)
    for at in range(0, len(plaintext), step):
        writer.add(plaintext[at : at + step])
    manifest = writer.finish({"user": 1})
    writer.close(manifest, keys.seal_manifest(whose, writer.header_bytes, manifest))
    return file.getvalue()
