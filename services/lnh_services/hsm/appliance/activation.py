"""Replaces what activates an HSM: a secret that somebody knows, also with a TPM, or one that M of N shares open.

    a TPM            holds the key that the secret gives, for this machine's starts; the secret opens the HSM, too

    draw-shares      a new secret is drawn, split and forgotten; the HSM is sealed as before
    set-activation   enough of the shares come back: they were kept, so the state is sealed under their secret

So no crash between these two leaves an HSM sealed under shares that nobody has. The state and its cover are one file,
which is replaced whole: either the secret before opens it or the new one.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, NotPossible, PasswordInvalid
from lnh_common.messages import console
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.hsm import Derive
from lnh_common.wire.shares import Share, Split
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cover
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.crypto import shares
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.crypto.tpm import TpmSealed


class Sealer(Protocol):
    """The TPM of this machine, as `crypto.tpm.Tpm` is."""

    async def seal(self, key: bytes, pcrs: tuple[int, ...] = ()) -> TpmSealed:
        """Seal a key; raises TpmFailed."""

    async def open(self, sealed: TpmSealed) -> bytes:
        """Open a key; raises TpmFailed, SealBroken."""


class Activation:
    """Carries out the change of what activates the HSM, for one core.

    Args:
        derive: runs one Argon2id elsewhere.
    """

    def __init__(self, vault: Vault, desk: Desk, *, derive: Callable[[Derive], Awaitable[bytes]], tpm: Sealer) -> None:
        self._vault: Final = vault
        self._desk: Final = desk
        self._derive: Final = derive
        self._tpm: Final = tpm
        self._drawn: Split | None = None

    def performers(self) -> dict[str, Callable[[Any], Awaitable[Message]]]:
        """Return the operations of the local console that are carried out here."""
        return {console.HSM_DRAW_SHARES.name: self._draw, console.HSM_SET_ACTIVATION.name: self._set}

    async def key(self, cover: Cover, request: console.Activate) -> bytes:
        """Return the key that the given secret, the given shares, or with neither the TPM open the state with.

        Raises ArgumentInvalid for wrong or too few shares, and for shares of an HSM that has none. Raises SealBroken,
        TpmFailed.
        """
        secret = request.activation
        if cover.split is not None:
            secret = shares.combined(cover.split, map(Share.parse, request.shares))
        elif request.shares:
            raise ArgumentInvalid("this HSM is activated by a secret, and not by shares")
        elif cover.tpm is not None and not secret:
            return await self._tpm.open(cover.tpm)
        return await self._derive(cover.derivation(secret))

    async def _draw(self, request: console.DrawShares) -> console.DrawnShares:
        await self._desk.authorise(request)
        secret = secrets.token_bytes(KEY_BYTES)
        self._drawn, handed = shares.split(secret, request.threshold, request.count, secrets.token_bytes)
        return console.DrawnShares(shares=tuple(share.text() for share in handed))

    async def _set(self, request: console.SetActivation) -> Empty:
        if request.tpm and request.shares:
            raise ArgumentInvalid("a TPM holds what a secret gives, and not what shares open: one or the other")
        if request.pcrs and not request.tpm:
            raise ArgumentInvalid("PCRs without a TPM, whose registers they are")
        await self._desk.authorise(request)
        split, secret = None, request.activation
        if request.shares:
            split = self._drawn
            if split is None:
                raise NotPossible("no shares were drawn since this member started: draw them anew")
            secret = shares.combined(split, map(Share.parse, request.shares))
        elif len(secret) < limits.ACTIVATION_BYTES[0]:
            raise PasswordInvalid(f"an activation secret of {len(secret)} bytes; at least {limits.ACTIVATION_BYTES[0]}")
        cover = self._vault.new_activation(split)
        key = await self._derive(cover.derivation(secret))
        if request.tpm:
            cover = replace(cover, tpm=await self._tpm.seal(key, tuple(sorted(set(request.pcrs)))))
        self._vault.reseal(cover, key)
        self._drawn = None
        return Empty()
