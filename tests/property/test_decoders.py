"""Whatever comes in, a decoder takes it or refuses it with a documented error, in bounded time and memory.

`LNH_SOAK_INPUTS` is the number of inputs each gets; `make soak` gives a million, a tenth of it to those that read files.
"""

from __future__ import annotations

import ast
import os
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnh_common import limits
from models.decoders import Decoder, decoders
from models.mutations_of_bytes import mutated

INPUTS = int(os.environ.get("LNH_SOAK_INPUTS", "1000"))
ROOT = Path(__file__).parents[2]
SECONDS = 1.0  # of processor time, for an input of some KiB: many times what the slowest takes
MEASURED = 50  # the memory of every so-many-th input
MEMORY = 2 * limits.MIB  # beyond what an input's size explains: caches of the code that is run the first time
PER_BYTE = 200  # a byte of CBOR is an item, and a Python object has some tens of bytes

# Who decodes, and has no row: why not.
WITHOUT_A_ROW = {
    "lnh_services.hsm.appliance.state:open": "what this HSM sealed, under the activation secret",
    "lnh_services.store.disk.sqlite:_get_meta": "a store's own database",
    "lnh_services.store.disk.items:_parse_answer": "a store's own database",
    "lnh_services.store.disk.items:eras": "a store's own database",
    "lnh_services.store.etcd_client.__main__:main": "what the command that started it says",
    "lnh.migration.journal:read": "what this user's own runs noted",
    "lnh_services.hsm.objects.stored:_sealing": "what an HSM sealed, under the keyring's key",
}


def seeds() -> int:
    return int(os.environ.get("LNH_SEED", "0")) or random.randrange(1 << 32)


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: decoder.name)
def test_valid_samples_are_taken(decoder: Decoder) -> None:
    taken = 0
    for sample, decode in decoder.samples:
        try:
            decode(sample)
            taken += 1
        except decoder.refusals:
            continue
    assert taken, "nothing that is fed is nearly valid"
    assert 2 * taken >= len(decoder.samples)


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: decoder.name)
def test_whatever_comes_in_is_taken_or_refused(decoder: Decoder) -> None:
    seed = seeds()
    random_ = random.Random(seed)
    samples = [sample for sample, _ in decoder.samples]
    for number in range(INPUTS // 10 if decoder.slow else INPUTS):
        sample, decode = random_.choice(decoder.samples)
        data = random_.randbytes(random_.randrange(64)) if number % 10 == 0 else mutated(random_, sample, samples)
        measured = number % MEASURED == MEASURED - 1
        if measured:
            tracemalloc.start()
        begun = time.thread_time()
        try:
            decode(data)
        except decoder.refusals:
            pass
        except Exception as error:
            pytest.fail(f"LNH_SEED={seed}, input {number}: {data.hex()} raises {error!r}")
        spent = time.thread_time() - begun
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak <= MEMORY + PER_BYTE * len(data), f"{peak} bytes for {len(data)}: {data[:2000].hex()}"
        assert spent < SECONDS, f"LNH_SEED={seed}, input {number}: {spent:.3f} s for {data[:2000].hex()}"


def decoding_functions() -> Iterator[str]:
    """Every function of the product that decodes what it did not make: `module:function`."""
    for package in ("common", "services", "client"):
        for path in (ROOT / package).rglob("*.py"):
            if {"nouns", "support", "demo", "drill"} & {*path.relative_to(ROOT).parts}:
                continue  # what the user types, and what other commands of this product print
            module = ".".join(path.relative_to(ROOT / package).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                    isinstance(each, ast.Call) and ast.unparse(each.func) in CALLS for each in ast.walk(node)
                ):
                    yield f"{module}:{node.name}"


CALLS = {
    "codec.decode", "codec.decode_as", "cbor2.loads", "json.loads", "msgspec.json.decode", "tomllib.loads", "pickle.loads",
    "struct.unpack", "_SIZES.unpack_from",
}  # fmt: skip


def test_every_decoder_has_a_row_or_a_reason() -> None:
    covered = {name for decoder in decoders() for name in decoder.covers}
    found = set(decoding_functions())
    missing = sorted(found - covered - WITHOUT_A_ROW.keys())
    assert not missing, f"enter them in models/decoders.py, or say here why not: {missing}"
    assert not WITHOUT_A_ROW.keys() - found
    assert not WITHOUT_A_ROW.keys() & covered
    gone = sorted(name for name in covered if not _is_there(*name.split(":")))
    assert not gone, f"rows name what is not there: {gone}"


def _is_there(module: str, function: str) -> bool:
    package = {
        "lnh_common": "common",
        "lnh_services": "services",
        "lnh": "client",
        "lnh_cli": "client",
        "lnh_pkcs11": "client",
        "lnh_rest": "client",
    }[module.partition(".")[0]]
    text = (ROOT / package / Path(*module.split("."))).with_suffix(".py").read_text()
    return f"def {function}(" in text
