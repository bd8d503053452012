"""The keyrings that this machine's client may see, on every cluster of client.toml, as tokens in slots."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lnh.aio import Cluster, Keyring
from lnh.aio.cluster import connect_to
from lnh.configuration import Configuration, Registration
from lnh_common import limits
from lnh_common.errors import LnhError
from lnh_common.text import shown
from lnh_pkcs11.application import Token
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

_log: Final = logging.getLogger("lnh.pkcs11")
SLOTS_PER_CLUSTER: Final = 10_000


@dataclass
class KeyringToken:
    """A keyring in its slot, as `application.Token` has it."""

    slot: int
    cluster: Cluster
    keyring: Keyring
    behind: bool


@dataclass
class _Site:
    """One cluster, and its keyrings in the slots that they got."""

    cluster: Cluster
    first: int
    slots: dict[bytes, int] = field(default_factory=dict)
    tokens: dict[int, KeyringToken] = field(default_factory=dict)
    listed: float | None = None
    unheard: float | None = None
    error: LnhError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Keyrings:
    """Lists keyrings, and keeps the connections to their clusters.

    A keyring keeps its slot for as long as the gateway runs: slots of a cluster are numbered by label, and later
    keyrings follow.

    Args:
        directory: where client.toml is; None for the usual place.
        timeout: seconds an operation may take.
    """

    def __init__(self, directory: Path | None = None, *, timeout: float = limits.DEADLINE) -> None:
        self._configuration: Final = Configuration(directory)
        self._timeout: Final = timeout
        self._sites: Final[dict[tuple[int, bytes], _Site]] = {}

    def now(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    async def listed(self) -> list[Token]:
        """List the keyrings there are; raises the error of a cluster where that leaves none."""
        sites = self._registered()
        await asyncio.gather(*(self._list(site) for site in sites))
        tokens: list[Token] = [token for site in sites for token in site.tokens.values()]
        if not tokens:
            for site in sites:
                if site.error is not None:
                    raise site.error
        return sorted(tokens, key=lambda token: token.slot)

    async def token(self, slot: int) -> Token:
        """Find the token of a slot, of those that were listed or else are listed now; raises Refused."""
        for is_new in (False, True):
            if is_new:
                await self.listed()
            for site in self._sites.values():
                if slot in site.tokens:
                    return site.tokens[slot]
        raise Refused(CKR.SLOT_ID_INVALID, f"slot {slot}")

    async def close(self) -> None:
        """Close the connections."""
        for site in self._sites.values():
            await site.cluster.close()

    def _registered(self) -> list[_Site]:
        return [self._site(each) for each in self._configuration.registrations()]

    def _site(self, registration: Registration) -> _Site:
        key = (registration.index, registration.client)
        if key not in self._sites:
            cluster = connect_to(self._configuration, registration, timeout=self._timeout)
            self._sites[key] = _Site(cluster, registration.index * SLOTS_PER_CLUSTER)
        return self._sites[key]

    async def _list(self, site: _Site) -> None:
        async with site.lock:
            now = self.now()
            if site.listed is not None and now - site.listed < limits.PKCS11_FRESH:
                return
            if site.unheard is not None and now - site.unheard < limits.PKCS11_UNHEARD:
                return
            listing = site.cluster.keyrings()
            try:
                found = [keyring async for keyring in listing]
            except LnhError as error:
                site.unheard, site.error = self.now(), error
                _log.warning("cluster %s does not list its keyrings: %s", site.cluster.label, shown(str(error)))
                return
            site.listed, site.unheard, site.error = self.now(), None, None
            for keyring in sorted(found, key=lambda keyring: keyring.label):
                site.slots.setdefault(keyring.id, site.first + len(site.slots))
            behind = not listing.current
            site.tokens = {
                site.slots[each.id]: KeyringToken(site.slots[each.id], site.cluster, each, behind) for each in found
            }
