"""A KMS plugin over a pure hsm worker, without a process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from lnh.aio import Cluster
from lnh.sessions import asked
from lnh_common.errors import KeyringUnknown, LnhError
from lnh_common.messages.base import Operation
from lnh_common.messages.objects import FIND
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import KeyType
from lnh_kms.plugin import Plugin
from models.gateway import WorkerSession
from models.worker import KRCO, Client, World, make_keyring

T = TypeVar("T")
KEYRING, LABEL = "payments", "kubernetes"


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(test, 60))


class Hsm:
    """A keyring of a cluster.

    Attributes:
        now: seconds, of plugins.
        logins: how many there were, and how many of them were refused.
        fails: what the next uses raise, one each.
        finds: how often objects were listed.
        answers: set, unless nothing is answered.
    """

    def __init__(self) -> None:
        self.world = World()
        self.client = Client(self.world, self.world.worker()).register()
        self.keyring = make_keyring(self.client)
        self.now = 100.0
        self.logins = self.refused = self.finds = 0
        self.password = KRCO
        self.fails: list[LnhError] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self._names = itertools.count()
        self.closed = False

    def plugin(self, keyring: str = KEYRING, label: str = LABEL, password: Callable[[], str] | None = None) -> Plugin:
        cluster = cast("Cluster", SimpleNamespace(keyring=self._keyring, close=self._close))
        return Plugin(cluster, keyring, label, password or (lambda: self.password), now=lambda: self.now)

    async def generate(self, label: str = LABEL) -> bytes:
        """Make a key; returns its handle. Time goes on: what is newer has a greater handle."""
        self.world.now += 1
        made = await self.session().generate_key(KeyType.AES, 256, label=label)
        return made.handle

    def session(self) -> WorkerSession:
        return _Session(self, Client(self.world, self.client.worker).register(f"other-{next(self._names)}"), KRCO)

    async def _keyring(self, label: str) -> Any:
        if label != KEYRING:
            raise KeyringUnknown(f"no keyring {label!r}")
        return SimpleNamespace(login=self._login)

    async def _login(self, role: Role, password: Any) -> WorkerSession:
        self.logins += 1
        assert role is Role.KRCO
        try:
            return _Session(self, self.client, asked(password))
        except LnhError:
            self.refused += 1
            raise

    async def _close(self) -> None:
        self.closed = True


class _Session(WorkerSession):
    def __init__(self, hsm: Hsm, client: Client, password: str) -> None:
        super().__init__(client, hsm.keyring, Role.KRCO, password)
        self._hsm = hsm

    async def call(self, operation: Operation[Any, Any], *arguments: Any, **how: Any) -> dict[str, Any]:
        self._hsm.finds += operation is FIND
        await asyncio.sleep(0)
        await self._hsm.answers.wait()
        if self._hsm.fails:
            raise self._hsm.fails.pop(0)
        return await super().call(operation, *arguments, **how)
