"""The SDK's sessions over a pure worker: what a member does with objects, without a process or a socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lnh.objects.session import ObjectSession
from lnh_common.messages.admin import CLUSTER_POLICY, PolicyChange
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import Credential, Role
from lnh_common.wire import codec
from models.worker import KRCO, Client, World, make_keyring


class WorkerSession(ObjectSession):
    """A session of a keyring's KRCO with a pure worker."""

    def __init__(self, client: Client, keyring: bytes) -> None:
        super().__init__()
        self.client = client
        self.keyring = keyring

    @classmethod
    def open(cls, **policy: Any) -> WorkerSession:
        """A session in a new world, whose cluster has this policy."""
        world = World()
        client = Client(world, world.worker()).register()
        keyring = make_keyring(client)
        if policy:
            client.as_administrator().ask(CLUSTER_POLICY, PolicyChange(changes=policy))
        return cls(client, keyring).again()

    def again(self) -> WorkerSession:
        """Another session of the same client."""
        self.client.login(Credential(role=Role.KRCO, keyring=self.keyring, password=KRCO))
        return WorkerSession(self.client, self.keyring)

    def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        message = codec.convert(fields, operation.request) if isinstance(fields, dict) else fields
        answer = self.client.ask(operation, message, self.keyring)
        made: dict[str, Any] = msgspec.to_builtins(answer, builtin_types=(bytes,))
        return made

    def call_each(
        self, calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]], in_flight: int, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        return (self.call(operation, fields) for operation, fields in calls)
