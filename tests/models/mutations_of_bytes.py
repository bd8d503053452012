"""Changes valid encodings into nearly valid ones: bytes, lengths, and the values of the CBOR items in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import cbor2

_ODD_BYTES: Final = (
    0x00,
    0x01,
    0x1B,
    0x3B,
    0x5B,
    0x5F,
    0x7B,
    0x80,
    0x9B,
    0x9F,
    0xBB,
    0xBF,
    0xC2,
    0xF5,
    0xF6,
    0xFB,
    0xFF,
)
_ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 255, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63), 2**200, 0.0, -0.0, float("inf"), float("nan"),
    1e300, b"", b"\x00", bytes(16), bytes(32), bytes(33), bytes(5000), "", "\x00", "\x1b[2J", "\u202e", "a" * 5000, "é",
    [], [[]], [0] * 300, {}, {0: 0}, {"": ""}, {b"": None},
)  # fmt: skip
_HEADS: Final = (b"\x9b", b"\xbb", b"\x5b", b"\x7b", b"\xdb")  # of an item whose length has eight bytes


def mutated(random_: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """One sample, changed in one to four ways."""
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        sample = random_.choice(_WAYS)(random_, sample, others)
    return sample


def _flip(random_: random.Random, data: bytes, __: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\x00")
    for _ in range(random_.choice((1, 1, 2, 8))):
        at = random_.randrange(len(changed))
        changed[at] = random_.choice(
            (changed[at] ^ (1 << random_.randrange(8)), random_.randrange(256), random_.choice(_ODD_BYTES))
        )
    return bytes(changed)


def _cut(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, to = sorted((random_.randrange(len(data) + 1), random_.randrange(len(data) + 1)))
    return random_.choice((data[:at], data[at:], data[:at] + data[to:]))


def _insert(random_: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = random_.randrange(len(data) + 1)
    other = random_.choice(others)
    start = random_.randrange(len(other) + 1)
    piece = random_.choice(
        (
            random_.randbytes(random_.randrange(1, 20)),
            bytes([random_.choice(_ODD_BYTES)]),
            data[:at][-30:],
            other[start : start + 60],
        )
    )
    return data[:at] + piece + data[at:]


def _claim(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Claim a length that is not there."""
    at = random_.randrange(len(data) + 1)
    length = random_.choice((2**63 - 1, 2**64 - 1, 2**32, 2**31 - 1, 2**24, 70_000))
    head = random_.choice(
        (random_.choice(_HEADS) + length.to_bytes(8, "big"), (length & 0xFFFFFFFF).to_bytes(4, "big"))
    )
    return data[:at] + head + data[at + random_.choice((0, 1, len(head))) :]


def _nest(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    depth = random_.choice((1, 2, 15, 16, 17, 100, 1000))
    return random_.choice((b"\x81", b"\xa1\x00")) * depth + data


def _in_cbor(random_: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change one value within the item that this is."""
    try:
        value = cbor2.loads(data)
    except Exception:  # what is no CBOR is changed as bytes
        return _flip(random_, data, others)
    places: list[Callable[[Any], None]] = []
    roots = [value]

    def collect(container: Any) -> None:
        keys = range(len(container)) if isinstance(container, list) else list(container)
        for key in keys:
            places.append(lambda new, container=container, key=key: container.__setitem__(key, new))  # type: ignore[misc]
            if isinstance(container[key], list | dict):
                collect(container[key])
        if isinstance(container, list):
            places.append(container.append)
            places.append(lambda _, container=container: container.pop() if container else None)  # type: ignore[misc]
        else:
            places.append(lambda new, container=container: container.__setitem__("unknown", new))  # type: ignore[misc]

    collect(roots)
    new = random_.choice(_ODD_VALUES)
    random_.choice(places)(new)
    try:
        return cbor2.dumps(roots[0]) if roots else b""
    except Exception:
        return data


_WAYS: Final = (_flip, _cut, _insert, _claim, _nest, _in_cbor, _in_cbor, _in_cbor)
