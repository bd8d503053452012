"""docs/formats/archive.md and its vector: a second implementation makes it, the product reads it and writes it."""

from __future__ import annotations

import io

import pytest

from lnh_common.messages.hsm import ChannelSeed, SmkGeneration
from lnh_common.wire import archives
from lnh_common.wire.archives import Writer
from lnh_services import archived
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.backup import archive_keys as keys
from models import archive_format, formats

GIVEN = formats.read(archive_format.PAGE.read_text())
CLUSTER = Cluster(
    id=GIVEN["CLUSTER"],
    label="prod",
    member=b"m" * 16,
    partition="0",
    phase=Phase.CREATED,
    identity=b"i" * 32,
    smk=(SmkGeneration(generation=archive_format.GENERATION, key=GIVEN["SMK"]),),
    channel=(ChannelSeed(epoch=1, seed=b"s" * 32, end=1),),
)


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_the_second_implementation_makes_what_the_page_says(name: str) -> None:
    assert archive_format.computed(GIVEN)[name].hex() == GIVEN[name].hex()


def test_the_product_reads_the_pages_archive() -> None:
    file = io.BytesIO(GIVEN["archive"])
    about = archives.check_copy(file)
    assert (about.header_bytes, about.manifest_bytes, about.seal) == (GIVEN["header"], GIVEN["manifest"], GIVEN["seal"])
    key = keys.open_archive(CLUSTER, about.header_bytes, about.manifest_bytes, about.seal)
    assert key == GIVEN["DATA KEY"]
    plaintext = b"".join(archives.plaintext(file, about, key))
    assert plaintext == GIVEN["plaintext"]
    (row,) = (row for batch in archived.batches([plaintext], about.manifest.items) for row in batch)
    assert list(row) == archive_format.ITEM
    assert archived.parse_tags(row[4]) == (b"ab",)


def test_the_product_writes_the_pages_archive() -> None:
    file = io.BytesIO()
    header = archives.parse_header(GIVEN["header"])
    writer = Writer(file.write, header, GIVEN["DATA KEY"])
    writer.add(GIVEN["plaintext"])
    manifest = writer.finish({"user": 1})
    assert manifest == GIVEN["manifest"]
    writer.close(manifest, GIVEN["seal"])
    assert file.getvalue() == GIVEN["archive"]
    sealed = keys.seal_manifest(CLUSTER, writer.header_bytes, manifest)
    assert keys.open_archive(CLUSTER, writer.header_bytes, manifest, sealed) == GIVEN["DATA KEY"]
