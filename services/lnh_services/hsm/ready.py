"""Requests that can be answered without asking anybody: the short way of almost every use of a key.

`open_ready` makes the checks of `WorkerCore.serve` and `operations/cryptography.py`, in their order, against what is in
the caches. Whatever it does not find there, and whatever fails, is None: then `serve`, which can ask, and which says
and records what is wrong, does it all anew. So nothing is refused here, and nothing is answered but success.

The steps are apart so that a worker can take them for many requests at a time: opening, signing and sealing each
need the processor's caches for themselves, and a step that is repeated finds them filled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lnh_common import channel, codec
from lnh_common.bundles import Entry
from lnh_common.channel import SessionKeys
from lnh_common.messages.base import OPERATIONS, Message
from lnh_common.messages.objects import UseMany
from lnh_common.wire import Frames, Header, Kind
from lnh_services.hsm import permissions
from lnh_services.hsm.caches import CachedKey, Prepared
from lnh_services.hsm.operations.cryptography import ACTS, Act
from lnh_services.hsm.uses import check_today
from lnh_services.hsm.worker_core import WorkerCore

_BYTES = (bytes,)


class Ready:
    """An opened and permitted use of a key."""

    __slots__ = ("_act", "_body", "_header", "_key", "_keys", "_message", "_operate", "_reply", "entry")

    def __init__(
        self, entry: Entry, header: Header, keys: SessionKeys, key: CachedKey, operate: Prepared, message: Any, act: Act
    ) -> None:
        self.entry = entry
        self._header = header
        self._keys = keys
        self._key = key
        self._operate = operate
        self._message = message
        self._act = act
        self._reply: Message | None = None

    def act(self, core: WorkerCore) -> bool:
        """Use the key; False if that failed, or the caches may no longer be used."""
        if not core.is_leased():
            return False
        try:
            self._reply = self._act(self._operate, self._message)
        except Exception:  # `serve` meets it again, and says what it is
            return False
        self._key.uses += len(self._message.items) if type(self._message) is UseMany else 1
        core.operations += 1
        return True

    def answer(self) -> Frames:
        """The frames of the sealed reply."""
        fields = msgspec.to_builtins(self._reply, builtin_types=_BYTES)
        return [
            self._header.answer(Kind.REPLY).pack(),
            b"",
            channel.seal_reply(self._keys, self._header, self.entry.body, fields),
        ]


def open_ready(core: WorkerCore, entry: Entry) -> Ready | None:
    """Open a request whose session, key and operation are cached; None for any other."""
    session = core.caches.sessions.get(entry.token)
    if session is None or not core.is_leased():
        return None
    try:
        header = Header.parse(entry.header)
        served = ACTS.get(header.operation)
        if served is None or header.kind is not Kind.REQUEST:
            return None
        operation = OPERATIONS[header.operation]
        envelope = channel.open_request(session.keys, header, entry.body)
        core.check_times(session)
        core.check_envelope(operation, envelope)
        message: Any = codec.convert(envelope.fields, operation.request)
        permissions.check(header.operation, header.route, session.holder)
        key = core.caches.keys.get((header.route, message.handle))
        if key is None or message.sealed:
            return None
        operate = key.prepared.get((served.use, message.mechanism, message.parameters))
        if operate is None:
            return None
        check_today(key, core.utc())
    except Exception:  # `serve` meets it again, and says what it is
        return None
    return Ready(entry, header, session.keys, key, operate, message, served.act)
