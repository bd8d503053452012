"""Makes and verifies archives: the store's state in, a file out, keys and seals from this member's HSM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import lnh_common
from lnh_common.bus.client import Client
from lnh_common.errors import Internal, LnhError, StorageFailed
from lnh_common.messages import backup, store
from lnh_common.messages.backup import Row
from lnh_common.messages.base import Empty
from lnh_common.wire import archives
from lnh_common.wire.archives import Header, Outline, Writer
from lnh_services import archived
from lnh_services.archived import Grouping
from lnh_services.backup.files import Archives, NewArchive, name_of
from lnh_services.backup.jobs import Job

ASK_SECONDS: Final = 30.0
END_SECONDS: Final = 2.0


class Making:
    """Makes archives for one member.

    Args:
        store, hsm: ask this member's.
        now: UTC milliseconds.
    """

    def __init__(
        self,
        archives_: Archives,
        store_: Client,
        hsm: Client,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._archives: Final = archives_
        self._store: Final = store_
        self._hsm: Final = hsm
        self._now: Final = now

    async def make(self, job: Job, *, scheduled: bool = False) -> None:
        """Make an archive of the state as it is now. Raises what store and HSM answer, StorageFailed."""
        job.tell(step="asking the HSM for a key")
        id_, created = os.urandom(16), self._now()
        key = await self._hsm.ask(backup.NEW_KEY, backup.NewKey(id=id_), timeout=ASK_SECONDS)
        stem = name_of(key.label, created, scheduled=scheduled)
        file = await asyncio.to_thread(NewArchive, self._archives.directory, stem)
        try:
            job.tell(step="writing")
            reading = await self._store.ask(store.READING_BEGIN, Empty(), timeout=ASK_SECONDS)
            header = Header(
                archives.FORMAT, id_, key.cluster, key.label, key.instance, key.generation, key.wrapped,
                archives.new_prefix(), archives.CHUNK_BYTES, created, reading.index, key.member, lnh_common.VERSION,
            )  # fmt: skip
            job.tell(total=reading.size)
            writer = Writer(file.write, header, key.key)
            await self._copy(job, reading, writer)
            manifest = await asyncio.to_thread(writer.finish, reading.items)
            sealing = backup.Sealing(header=writer.header_bytes, manifest=manifest)
            sealed = await self._hsm.ask(backup.SEAL, sealing, timeout=ASK_SECONDS)
            writer.close(manifest, sealed.seal)
            job.tell(step="making it durable")
            job.tell(archive=await asyncio.to_thread(file.finish))
        except BaseException:
            file.discard()
            raise

    async def _copy(self, job: Job, reading: store.Reading, writer: Writer) -> None:
        number = 0
        try:
            while True:
                asked = store.ReadPart(id=reading.id, number=number)
                part = await self._store.ask(store.READING_PART, asked, timeout=ASK_SECONDS)
                if not part.data:
                    return
                await asyncio.to_thread(writer.add, part.data)
                job.tell(done=min(job.view.done + len(part.data), job.view.total))
                number += 1
        except BaseException:
            with contextlib.suppress(LnhError):  # or it would keep the store's log from being shortened for a while
                await self._store.ask(store.READING_END, store.ReadingRef(id=reading.id), timeout=END_SECONDS)
            raise

    async def opened(self, file: BinaryIO) -> tuple[Outline, bytes]:
        """Read what an archive says, have the HSM check it, and return it with the data key.

        Raises ArchiveInvalid, StorageFailed.
        """
        about = await asyncio.to_thread(outlined, file)
        opening = backup.Opening(header=about.header_bytes, manifest=about.manifest_bytes, seal=about.seal)
        return about, (await self._hsm.ask(backup.OPEN, opening, timeout=ASK_SECONDS)).key

    async def verify(self, job: Job, name: str) -> None:
        """Read every byte of an archive. Raises NameUnknown, ArchiveInvalid, StorageFailed."""
        with await asyncio.to_thread(self._archives.open, name) as file:
            job.tell(step="reading")
            about, key = await self.opened(file)
            job.tell(total=about.manifest.size)
            await asyncio.to_thread(_read_through, job, file, about, key)


def outlined(file: BinaryIO) -> Outline:
    """Read what an archive says of itself. Raises ArchiveInvalid, StorageFailed."""
    try:
        return archives.outline(file)
    except OSError as error:
        raise StorageFailed(f"the archive cannot be read: {error.strerror}") from error


def _read_through(job: Job, file: BinaryIO, about: Outline, key: bytes) -> None:
    for _ in rows(job, file, about, key):
        pass


def rows(
    job: Job, file: BinaryIO, about: Outline, key: bytes, tell: Callable[[Grouping], None] = lambda _: None
) -> Iterator[list[Row]]:
    """Yield every row of an archive, telling the job how far it came, and first of all the groups.

    Raises ArchiveInvalid, StorageFailed.
    """

    def chunks() -> Iterator[bytes]:
        done = 0
        for chunk in archives.plaintext(file, about, key):
            if job.stopped:
                raise Internal("the backup service is stopping")
            done += len(chunk)
            job.tell(done=done)
            yield chunk

    try:
        yield from archived.batches(chunks(), about.manifest.items, tell)
    except OSError as error:
        raise StorageFailed(f"the archive cannot be read: {error.strerror}") from error
