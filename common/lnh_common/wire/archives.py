"""The archive file: a cluster's sealed state at one index. The bytes of it; no key hierarchy and no disk here.

    "LNHARCH1"  frame(header)  frame(chunk 0) ... frame(chunk n)  frame([manifest, seal])  its length  "LNHE"

A frame is four bytes of length, big-endian, and what it holds. The chunks are the plaintext, cut every `chunk_bytes`,
under AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and
its Nonce-Reuse Misuse-Resistance, CRYPTO 2015, section 7), with a data key that is used for this one archive:

    nonce of chunk i = prefix (7 bytes, random), i (4 bytes, big-endian), 1 for the last chunk or else 0 (1 byte)
    associated data  = SHA-256 of all before the first chunk

So no chunk can be changed, moved, left out or taken from another archive, and a file that ends early is noticed. The
manifest at the end says how much there is and has the hash of all before it, so that a copy can be checked without any
key; that it is genuine is shown by the seal, which an HSM of the cluster makes and checks
(`hsm/backup/archive_keys.py`). docs/formats/archive.md is exact.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Annotated, BinaryIO, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lnh_common import limits
from lnh_common.errors import ArchiveInvalid, MalformedMessage
from lnh_common.messages.session import Id16
from lnh_common.wire import codec

FORMAT: Final = 1
MAGIC: Final = b"LNHARCH1"
END: Final = b"LNHE"
CHUNK_BYTES: Final = 256 * limits.KIB
PREFIX_BYTES: Final = 7
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
_LENGTH: Final = 4
_HEADER_BYTES: Final = 16 * limits.KIB
_MANIFEST_BYTES: Final = 64 * limits.KIB
_CHUNKS: Final = 1 << 32

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of an archive before the chunks, in clear.

    Args:
        id: of this archive.
        cluster, label, instance: the cluster's, when it was made.
        generation: of the SMK that wrapped the data key.
        wrapped: the data key.
        prefix: of the chunks' nonces.
        chunk_bytes: of plaintext in every chunk but the last.
        created_at: UTC milliseconds.
        index: the state is that after this entry of the log.
        member, product: name and version of the member that made it.
    """

    format: int
    id: Id16
    cluster: Id16
    label: str
    instance: Id16
    generation: int
    wrapped: Annotated[bytes, msgspec.Meta(max_length=256)]
    prefix: Annotated[bytes, msgspec.Meta(min_length=PREFIX_BYTES, max_length=PREFIX_BYTES)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1, le=limits.MIB)]
    created_at: int
    index: int
    member: str
    product: str


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of an archive behind the chunks, in clear.

    Args:
        head: SHA-256 of all before the first chunk.
        chunks, size: number of chunks, and of bytes of plaintext.
        hash: SHA-256 of all before the manifest's frame.
        items: number of items of each table.
    """

    format: int
    id: Id16
    head: Hash
    chunks: int
    size: int
    hash: Hash
    items: dict[str, int]


class Outline(msgspec.Struct, frozen=True):
    """The description that an archive gives of itself without any key, which proves nothing.

    Args:
        manifest_bytes, seal: the manifest as it stands there, and the HSM's seal of it.
        start, end: where the chunks are in the file.
        size: of the file.
    """

    header: Header
    header_bytes: bytes
    manifest: Manifest
    manifest_bytes: bytes
    seal: bytes
    start: int
    end: int
    size: int


def head_hash(header: bytes) -> bytes:
    """Hash the head of an archive, which the chunks and the manifest are bound to."""
    return hashlib.sha256(MAGIC + _frame(header)).digest()


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH, "big") + content


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes((last,))


def new_prefix() -> bytes:
    """Draw the random prefix of an archive's nonces."""
    return os.urandom(PREFIX_BYTES)


class Writer:
    """Writes one archive: `add` the plaintext, `finish`, then `close` with the seal of what `finish` answered.

    Args:
        write: takes the next bytes of the file.
        key: the data key (32 bytes), used for nothing else.
    """

    def __init__(self, write: Callable[[bytes], object], header: Header, key: bytes) -> None:
        self._write: Final = write
        self._header: Final = header
        self._cipher: Final = AESGCM(key)
        self._hash: Final = hashlib.sha256()
        self._waiting = bytearray()
        self._chunks = self._size = 0
        self.header_bytes: Final = codec.encode(header)
        self._head: Final = head_hash(self.header_bytes)
        self._put(MAGIC + _frame(self.header_bytes))

    def add(self, data: bytes) -> None:
        """Write the next plaintext."""
        self._waiting += data
        size = self._header.chunk_bytes
        while len(self._waiting) > size:  # what is just full may be the last
            self._chunk(bytes(self._waiting[:size]), last=False)
            del self._waiting[:size]

    def finish(self, items: dict[str, int]) -> bytes:
        """End the plaintext, and return the manifest, which is to be sealed."""
        self._chunk(bytes(self._waiting), last=True)
        self._waiting.clear()
        return codec.encode(
            Manifest(FORMAT, self._header.id, self._head, self._chunks, self._size, self._hash.digest(), items)
        )

    def close(self, manifest: bytes, seal: bytes) -> None:
        """Write the manifest and its seal, which end the file."""
        framed = _frame(codec.encode([manifest, seal]))
        self._write(framed + len(framed).to_bytes(_LENGTH, "big") + END)

    def _chunk(self, plaintext: bytes, *, last: bool) -> None:
        nonce = _nonce(self._header.prefix, self._chunks, last=last)
        self._put(_frame(self._cipher.encrypt(nonce, plaintext, self._head)))
        self._chunks += 1
        self._size += len(plaintext)
        assert self._chunks < _CHUNKS, "an archive with more chunks than its counter has"

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._write(data)


def outline(file: BinaryIO) -> Outline:
    """Read what an archive says of itself.

    Raises ArchiveInvalid for a file that is no archive, is of a newer format or ends early, and OSError.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise ArchiveInvalid("it does not begin as an archive of this product does")
    header_bytes = _read_frame(file, _HEADER_BYTES)
    header = parse_header(header_bytes)
    start = file.tell()
    tail = _LENGTH + len(END)
    if size < start + tail:
        raise ArchiveInvalid("it ends early")
    file.seek(size - tail)
    length, end = int.from_bytes(file.read(_LENGTH), "big"), file.read(len(END))
    if end != END or not _LENGTH < length <= min(_MANIFEST_BYTES, size - tail - start):
        raise ArchiveInvalid("it ends early, or something was added at its end")
    file.seek(size - tail - length)
    last = _read_frame(file, _MANIFEST_BYTES)
    if file.tell() != size - tail:
        raise ArchiveInvalid("its manifest is damaged")
    manifest_bytes, seal = _parse_end(last)
    manifest = parse_manifest(manifest_bytes)
    if manifest.id != header.id or manifest.head != head_hash(header_bytes):
        raise ArchiveInvalid("its beginning and its end are not of the same archive")
    return Outline(
        header=header, header_bytes=header_bytes, manifest=manifest, manifest_bytes=manifest_bytes, seal=seal,
        start=start, end=size - tail - length, size=size,
    )  # fmt: skip


def parse_header(data: bytes) -> Header:
    """Decode a header; raises ArchiveInvalid, also for a newer format."""
    try:
        decoded = codec.decode(data, _HEADER_BYTES)
        if isinstance(decoded, list) and decoded and isinstance(decoded[0], int) and decoded[0] > FORMAT:
            raise ArchiveInvalid(f"it has format {decoded[0]}; this version reads {FORMAT}: a newer version made it")
        return codec.convert(decoded, Header)
    except MalformedMessage as error:
        raise ArchiveInvalid(f"its header does not decode: {error}") from None


def parse_manifest(data: bytes) -> Manifest:
    """Decode a manifest; raises ArchiveInvalid."""
    try:
        return codec.decode_as(data, Manifest, _MANIFEST_BYTES)
    except MalformedMessage as error:
        raise ArchiveInvalid(f"its manifest does not decode: {error}") from None


def _parse_end(data: bytes) -> tuple[bytes, bytes]:
    try:
        return codec.decode_as(data, tuple[bytes, bytes], _MANIFEST_BYTES)
    except MalformedMessage as error:
        raise ArchiveInvalid(f"its manifest does not decode: {error}") from None


def _read_frame(file: BinaryIO, limit: int) -> bytes:
    length = int.from_bytes(_exactly(file, _LENGTH), "big")
    if length > limit:
        raise ArchiveInvalid(f"a part of it claims {length} bytes; at most {limit}")
    return _exactly(file, length)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ArchiveInvalid("it ends early")
    return data


def plaintext(file: BinaryIO, about: Outline, key: bytes) -> Iterator[bytes]:
    """Yield the plaintext, a chunk at a time; it is whole and genuine once the last chunk came without an error.

    Args:
        about: what `outline` said of this file, its manifest's seal checked.
        key: the data key.

    Raises ArchiveInvalid, OSError.
    """
    header, manifest = about.header, about.manifest
    cipher, hash_ = AESGCM(key), hashlib.sha256()
    file.seek(0)
    hash_.update(_exactly(file, about.start))
    size = 0
    for number in range(manifest.chunks):
        last = number == manifest.chunks - 1
        framed = _read_frame(file, header.chunk_bytes + TAG_BYTES)
        hash_.update(_frame(framed))
        try:
            opened = cipher.decrypt(_nonce(header.prefix, number, last=last), framed, manifest.head)
        except (InvalidTag, ValueError):
            raise ArchiveInvalid(f"chunk {number} of {manifest.chunks} is damaged, or in another's place") from None
        if not last and len(opened) != header.chunk_bytes:
            raise ArchiveInvalid(f"chunk {number} is cut short")
        size += len(opened)
        if last and (file.tell() != about.end or size != manifest.size or hash_.digest() != manifest.hash):
            raise ArchiveInvalid("it holds more or less than its manifest says")
        yield opened
    if not manifest.chunks:
        raise ArchiveInvalid("it holds nothing")


def check_copy(file: BinaryIO) -> Outline:
    """Check, without any key, that a file is the whole of some archive, as after a download.

    Raises ArchiveInvalid, OSError.
    """
    about = outline(file)
    file.seek(0)
    hash_, left = hashlib.sha256(), about.end
    while left:
        data = _exactly(file, min(left, limits.MIB))
        hash_.update(data)
        left -= len(data)
    if hash_.digest() != about.manifest.hash:
        raise ArchiveInvalid("its content is not what its manifest says")
    return about
