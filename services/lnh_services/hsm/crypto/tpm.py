"""Seals a key to the TPM 2.0 of this machine, and has it opened, by a process that ends with each act.

    the core     a key, or what was sealed   ->  a process with the TPM's library  ->  /dev/tpmrm0
                 through a pipe                  (tpm_process.py)

The library is C, speaks to a device that may never answer, and is asked once a start: it has no place in the process
that holds every other key. The process is hardened as a worker is, and is killed when it takes too long.

What is sealed is kept by us and not by the TPM, so nothing of the TPM is used up. It names the storage key it lies
under, by which another TPM is told, and the one that somebody put between us and the TPM, too.
"""

from __future__ import annotations

import asyncio
import enum
import sys
from asyncio.subprocess import PIPE
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import MalformedMessage, SealBroken, TpmFailed
from lnh_common.messages.base import Confidential
from lnh_common.messages.console import Pcr
from lnh_common.wire import codec
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.crypto.process_hardening import child_environment

PROCESS: Final = "lnh_services.hsm.crypto.tpm_process"
SECONDS: Final = 30.0  # a slow TPM makes its storage key anew in some seconds
_PART: Final = 1024  # bytes of what a TPM makes for 32: some 200
_NAME: Final = 66  # bytes of a name: an algorithm and its hash, SHA-512 at most


class TpmSealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key sealed to a TPM. It says nothing of the key; no other TPM opens it.

    Args:
        parent: the name of the storage key that it lies under.
        public, private: as the TPM made them (TPM2B_PUBLIC, TPM2B_PRIVATE).
        pcrs: whose values, of SHA-256, must be those of when it was sealed.
    """

    parent: Annotated[bytes, msgspec.Meta(min_length=1, max_length=_NAME)]
    public: Annotated[bytes, msgspec.Meta(min_length=1, max_length=_PART)]
    private: Annotated[bytes, msgspec.Meta(min_length=1, max_length=_PART)]
    pcrs: Annotated[tuple[Pcr, ...], msgspec.Meta(max_length=limits.TPM_PCRS)] = ()


class Cause(str, enum.Enum):
    """The reason why a TPM did not do what it was asked."""

    LIBRARY = "library"
    MISSING = "missing"
    PERMISSION = "permission"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    ANOTHER = "another"
    PCRS = "pcrs"
    LOCKOUT = "lockout"
    OWNER = "owner"
    DAMAGED = "damaged"
    REFUSED = "refused"


_BY_HAND: Final = "or activate it with the secret: lnh hsm activate --by-secret"

CAUSES: Final[dict[Cause, tuple[str, str]]] = {
    Cause.LIBRARY: (
        "tpm2-pytss, by which a TPM is spoken to, is not to be loaded",
        f"pip install 'lnh[tpm]' where libtss2-dev is installed, {_BY_HAND}",
    ),
    Cause.MISSING: (
        "there is no TPM at {tpm}",
        f"switch it on in the firmware, or name another in [activation] tpm of member.toml, {_BY_HAND}",
    ),
    Cause.PERMISSION: (
        "this user may not use the TPM at {tpm}",
        f"put the member's user into the group of the device (tss), and start the member anew, {_BY_HAND}",
    ),
    Cause.UNREACHABLE: ("the TPM at {tpm} is not reached", f"check [activation] tpm of member.toml, {_BY_HAND}"),
    Cause.SILENT: ("the TPM at {tpm} did not answer within {seconds:g} s", f"try again, {_BY_HAND}"),
    Cause.ANOTHER: (
        "the TPM at {tpm} is not the one that sealed this HSM's key, or was cleared since",
        "activate it with the secret, lnh hsm activate --by-secret, and seal to this TPM: lnh hsm set-activation --tpm",
    ),
    Cause.PCRS: (
        "the PCRs of this machine are not those that the key was sealed to: firmware or boot were changed",
        "if you changed them: lnh hsm activate --by-secret, and lnh hsm set-activation --tpm --pcrs again",
    ),
    Cause.LOCKOUT: (
        "the TPM at {tpm} is in lockout: too many wrong passwords were tried at what it guards",
        f"wait, or end it with the lockout password (tpm2_dictionarylockout --clear-lockout), {_BY_HAND}",
    ),
    Cause.OWNER: (
        "the owner hierarchy of the TPM at {tpm} has a password, which this product does not ask for",
        f"take it away (tpm2_changeauth -c owner), {_BY_HAND}",
    ),
    Cause.DAMAGED: (
        "what was sealed to the TPM is damaged: data/hsm/hsm.state was changed",
        f"put data/hsm/hsm.state back from a copy of this disk, {_BY_HAND}",
    ),
    Cause.REFUSED: ("the TPM at {tpm} refused", f"look its answer up, {_BY_HAND}"),
}


class Asked(Confidential):
    """A question to the process: a key to be sealed, or what was sealed.

    Args:
        tpm: how it is reached, as tpm2-tss has it (TCTI): `device:/dev/tpmrm0`.
        key: to be sealed; empty to open `sealed`.
    """

    tpm: str
    key: bytes = b""
    pcrs: tuple[Pcr, ...] = ()
    sealed: TpmSealed | None = None


class Answered(Confidential):
    """The answer of the process: a key, what was sealed, or why there is neither.

    Args:
        said: the TPM's own answer, where it has one.
    """

    key: bytes = b""
    sealed: TpmSealed | None = None
    cause: Cause | None = None
    said: str = ""


class Tpm:
    """The TPM of this machine.

    Args:
        tpm: how it is reached, as tpm2-tss has it (TCTI).
        seconds: it may take.
    """

    def __init__(self, tpm: str, seconds: float = SECONDS) -> None:
        self._tpm: Final = tpm
        self._seconds: Final = seconds

    async def seal(self, key: bytes, pcrs: tuple[int, ...] = ()) -> TpmSealed:
        """Seal a key of 32 bytes, and see that it opens again; raises TpmFailed.

        Args:
            pcrs: whose values of SHA-256 must stay as they are.
        """
        assert len(key) == KEY_BYTES, "what is sealed is a key"
        sealed = (await self._ask(Asked(tpm=self._tpm, key=key, pcrs=pcrs))).sealed
        if sealed is None or await self.open(sealed) != key:
            raise self._failed(Cause.REFUSED, "what it sealed does not open again")
        return sealed

    async def open(self, sealed: TpmSealed) -> bytes:
        """Open what `seal` returned; raises TpmFailed, SealBroken where the TPM opens something else."""
        key = (await self._ask(Asked(tpm=self._tpm, sealed=sealed))).key
        if len(key) != KEY_BYTES:
            raise SealBroken("what the TPM opened is no key of this HSM")
        return key

    async def _ask(self, asked: Asked) -> Answered:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", PROCESS, stdin=PIPE, stdout=PIPE, env=child_environment()
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(codec.encode(asked)), self._seconds)
        except asyncio.TimeoutError:
            raise self._failed(Cause.SILENT) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            answered = codec.decode_as(said, Answered)
        except MalformedMessage:
            raise self._failed(Cause.REFUSED, f"its process ended with {process.returncode}") from None
        if answered.cause is not None:
            raise self._failed(answered.cause, answered.said)
        return answered

    def _failed(self, cause: Cause, said: str = "") -> TpmFailed:
        words, advice = CAUSES[cause]
        text = words.format(tpm=self._tpm, seconds=self._seconds)
        return TpmFailed(f"{text} ({said})" if said else text, {"advice": advice, "cause": cause.value})
