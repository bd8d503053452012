"""Answers an API server's three questions by the cluster: one keyring, one label, one session as the keyring's KRCO.

The session is opened when it is needed, renews itself, and is opened anew where it was ended. Keys are listed by each
`status`, and where somebody names one that is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from lnh.aio import Cluster, KeyringSession, SecretKey
from lnh.aio.objects.keys import of_view
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    DataLength,
    DeadlineExceeded,
    LnhError,
    PasswordIncorrect,
    PasswordLocked,
    PasswordMustChange,
    TokenExpired,
    TokenUnknown,
)
from lnh_common.events import Log
from lnh_common.messages.objects import ObjectView
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import KeyType, ObjectClass, to_wire
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_kms.keys import Keys, parameters
from lnh_kms.statuses import line_of

T = TypeVar("T")

OK: Final = "ok"
_TRIED: Final = bytes(32)  # as long as what an API server has encrypted
_OF_PASSWORDS: Final = (PasswordIncorrect, PasswordLocked, PasswordMustChange)
_TAMPERED: Final = {
    "advice": "the stored data was changed: restore the object, or the API server's store, from a backup"
}

_log: Final = Log("kms")


class Status(NamedTuple):
    """What `Status` answers.

    Args:
        healthz: "ok", or what is wrong.
        key_id: of the key that encrypts; empty where none is known.
    """

    healthz: str
    key_id: str


class Sealed(NamedTuple):
    """What `Encrypt` answers."""

    ciphertext: bytes
    key_id: str


class Plugin:
    """The plugin.

    Args:
        cluster: its connection, which is the plugin's to close.
        keyring: label of the keyring.
        label: of the keys in it.
        password: asks for the KRCO's.
        now: seconds that only grow.
    """

    def __init__(
        self,
        cluster: Cluster,
        keyring: str,
        label: str,
        password: Callable[[], str],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster: Final = cluster
        self._keyring: Final = keyring
        self._label: Final = label
        self._password: Final = password
        self._now: Final = now
        make = f"lnh key generate -k {shlex.quote(keyring)} {shlex.quote(label)} --type AES --bits 256"
        self._keys: Final[Keys[SecretKey]] = Keys(label, make)
        self._session: KeyringSession | None = None
        self._opening: Final = asyncio.Lock()
        self._refused_until = 0.0
        self._refusal = LnhError()  # of a login, which is not tried again until then
        self._looking: Final = asyncio.Lock()
        self._looked: float | None = None
        self._healthz = ""

    async def status(self, seconds: float) -> Status:
        """Look for a newer key, and tell whether the newest encrypts.

        Args:
            seconds: that this may take.
        """
        before = self._keys.chosen_id
        try:
            await self._within(seconds, self._examined())
            healthz = OK
        except LnhError as error:
            healthz = line_of(error)
        if self._keys.chosen_id != before:
            _log.info("key", key_id=self._keys.chosen_id, before=before)
        if healthz != self._healthz:
            (_log.info if healthz == OK else _log.warning)("health", healthz=healthz)
            self._healthz = healthz
        return Status(healthz, self._keys.chosen_id)

    async def encrypt(self, plaintext: bytes, seconds: float) -> Sealed:
        """Encrypt with the key that `status` told last.

        Raises DataLength for more than an API server stores, NotPossible without a key, and what a call raises.
        """
        if len(plaintext) > limits.KMS_PLAINTEXT_BYTES:
            what = f"{len(plaintext)} bytes of plaintext; at most {limits.KMS_PLAINTEXT_BYTES}"
            raise DataLength(what, {"advice": "an API server sends 32, and stores no ciphertext of more than 1 kB"})
        if not self._keys.chosen_id:
            await self._within(seconds, self._look())
            self._keys.choose()
        return await self._in_session(lambda _: self._sealed(plaintext, seconds))

    async def decrypt(self, ciphertext: bytes, key_id: str, annotations: Mapping[str, bytes], seconds: float) -> bytes:
        """Decrypt what `encrypt` answered, under this key id.

        Raises ArgumentInvalid for what it can not have answered, EncryptedDataInvalid for what was changed,
        ObjectUnknown for a key id of no key, MemberBehind where that cannot be told, and what a call raises.
        """
        if len(ciphertext) > limits.KMS_CIPHERTEXT_BYTES or len(key_id) > limits.KMS_KEY_ID_CHARACTERS or annotations:
            what = "a longer ciphertext, a longer key id, or annotations"
            raise ArgumentInvalid(f"no answer of this plugin has {what}", _TAMPERED)
        if not self._keys.has(key_id):
            await self._within(seconds, self._look())
        return await self._in_session(lambda _: self._opened(ciphertext, key_id, seconds))

    async def close(self) -> None:
        """Log out, and close the connection."""
        if self._session is not None:
            with contextlib.suppress(LnhError):  # the session dies with its token
                await self._session.logout()
        await self._cluster.close()

    async def _examined(self) -> None:
        await self._look()
        self._keys.choose()
        await self._in_session(lambda _: self._sealed(_TRIED, limits.DEADLINE))

    async def _sealed(self, plaintext: bytes, seconds: float) -> Sealed:
        key, name = self._keys.encrypting(), self._keys.chosen_id
        return Sealed(await key.encrypt(plaintext, Mechanism.AES_GCM, parameters(name), timeout=seconds), name)

    async def _opened(self, ciphertext: bytes, key_id: str, seconds: float) -> bytes:
        key = self._keys.decrypting(key_id)
        return await key.decrypt(ciphertext, Mechanism.AES_GCM, parameters(key_id), timeout=seconds)

    async def _look(self) -> None:
        """List the keys, unless that was done a moment ago."""
        async with self._looking:
            if self._looked is not None and self._now() - self._looked < limits.KMS_FRESH:
                return
            await self._in_session(self._list)
            self._looked = self._now()

    async def _list(self, session: KeyringSession) -> None:
        listing = session.find(object_class=ObjectClass.SECRET_KEY, key_type=KeyType.AES, label=self._label)
        found = [key async for key in listing if isinstance(key, SecretKey)]
        self._keys.take(found, current=listing.current)

    async def _in_session(self, work: Callable[[KeyringSession], Awaitable[T]]) -> T:
        """Do something in the session, and where that was ended, in the next one."""
        session = await self._open()
        try:
            return await work(session)
        except (TokenUnknown, TokenExpired):
            if self._session is session:
                self._session = None
        return await work(await self._open())

    async def _open(self) -> KeyringSession:
        if self._session is not None:
            return self._session
        async with self._opening:
            if self._session is None:
                if self._now() < self._refused_until:
                    raise type(self._refusal)(self._refusal.message, self._refusal.detail)
                session = self._session = await self._log_in()
                self._keys.bind(lambda key: _of_session(session, key))
            return self._session

    async def _log_in(self) -> KeyringSession:
        try:
            keyring = await self._cluster.keyring(self._keyring)
            return await keyring.login(Role.KRCO, self._password)
        except LnhError as error:
            lasts = limits.KMS_LOGIN_AGAIN if isinstance(error, _OF_PASSWORDS) else limits.KMS_FRESH
            self._refused_until, self._refusal = self._now() + lasts, error
            raise

    @staticmethod
    async def _within(seconds: float, work: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(work, seconds)
        except (TimeoutError, asyncio.TimeoutError):
            what = f"the cluster did not answer within {seconds:.1f} s"
            raise DeadlineExceeded(
                what, {"advice": "see why: lnh doctor; the API server's timeout bounds this"}
            ) from None


def _of_session(session: KeyringSession, key: SecretKey) -> SecretKey:
    view = ObjectView(handle=key.handle, version=key.version, attributes=dict(to_wire(key.attributes)))
    made = of_view(session, view)
    assert isinstance(made, SecretKey), "it is of the same class"
    return made
