"""Makes and unwraps the data keys of archives, and seals and checks their manifests. Pure.

    wrapped data key   sealed under HKDF(SMK, "lnh backup"), kind archive-key, handle the archive's id
    the manifest's seal  the same key, kind archive-manifest, over SHA-256(manifest), bound to SHA-256(header)

The backup service gets the data key of an archive it writes or reads. It gets the content of an archive from its
member's store anyway, every object still sealed under its keyring's key; the data key protects what a stolen archive
must not tell, the names and numbers of things. So no object is opened by it, and the HSM need not have a gigabyte pass
through it.
"""

from __future__ import annotations

import hashlib
import secrets

from lnh_common.errors import ArchiveInvalid, SealBroken
from lnh_common.wire import archives
from lnh_common.wire.archives import Header, Manifest
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal


def _place(kind: Kind, generation: int, cluster: bytes, archive: bytes, extra: bytes = b"") -> Place:
    return Place(kind, generation=generation, cluster=cluster, handle=archive, extra=extra)


def new_key(cluster: Cluster, archive: bytes, generation: int) -> tuple[bytes, bytes]:
    """Draw the data key for the archive of this id; returns it in clear, and wrapped under a generation of the SMK."""
    key, smk = secrets.token_bytes(archives.KEY_BYTES), cluster.smk_of(generation)
    return key, seal(Purpose.BACKUP.derive(smk.key), key, _place(Kind.ARCHIVE_KEY, smk.generation, cluster.id, archive))


def seal_manifest(cluster: Cluster, header_bytes: bytes, manifest_bytes: bytes) -> bytes:
    """Seal a manifest; raises ArchiveInvalid when header and manifest do not belong together."""
    header, _ = _read(cluster, header_bytes, manifest_bytes)
    place = _place(Kind.ARCHIVE_MANIFEST, header.generation, cluster.id, header.id, _hash(header_bytes))
    return seal(_backup_key(cluster, header), _hash(manifest_bytes), place)


def open_archive(cluster: Cluster, header_bytes: bytes, manifest_bytes: bytes, sealed: bytes) -> bytes:
    """Unwrap the data key of an archive that an HSM of this cluster made; raises ArchiveInvalid for any other."""
    header, _ = _read(cluster, header_bytes, manifest_bytes)
    key = _backup_key(cluster, header)
    place = _place(Kind.ARCHIVE_MANIFEST, header.generation, cluster.id, header.id, _hash(header_bytes))
    try:
        vouched = unseal(key, sealed, place)
        data_key = unseal(key, header.wrapped, _place(Kind.ARCHIVE_KEY, header.generation, cluster.id, header.id))
    except SealBroken:
        vouched = data_key = b""
    if vouched != _hash(manifest_bytes):
        raise ArchiveInvalid("no HSM of this cluster sealed it so: it was changed")
    return data_key


def _read(cluster: Cluster, header_bytes: bytes, manifest_bytes: bytes) -> tuple[Header, Manifest]:
    header, manifest = archives.parse_header(header_bytes), archives.parse_manifest(manifest_bytes)
    if header.cluster != cluster.id:
        raise ArchiveInvalid(f"it is of another cluster: {header.label} ({header.cluster.hex()})")
    if manifest.id != header.id or manifest.head != archives.head_hash(header_bytes):
        raise ArchiveInvalid("its beginning and its end are not of the same archive")
    return header, manifest


def _backup_key(cluster: Cluster, header: Header) -> bytes:
    for held in cluster.smk:
        if held.generation == header.generation:
            return Purpose.BACKUP.derive(held.key)
    raise ArchiveInvalid(f"it was made under SMK generation {header.generation}, which this HSM does not hold")


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
