"""Requests that can be answered without asking anybody: the short way of almost every use of a key.

`open_ready` makes the checks of `WorkerCore.serve` and `operations/cryptography.py`, in their order, against what is in
the caches. Whatever it does not find there, and whatever fails, is None: then `serve`, which can ask, and which says
and records what is wrong, does it all anew. So nothing is refused here, and nothing is answered but success.

The steps are apart so that a worker can take them for many requests at a time: opening, signing and sealing each
need the processor's caches for themselves, and a step that is repeated finds them filled.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lnh_common import channel, codec
from lnh_common.bundles import VOUCHED, Entry
from lnh_common.channel import SessionKeys
from lnh_common.errors import LnhError
from lnh_common.messages.base import OPERATIONS
from lnh_common.messages.objects import TOGETHER, USES, UseMany, Uses
from lnh_common.wire import Frames, Header, Kind
from lnh_services.hsm import permissions
from lnh_services.hsm.operations.cryptography import ACTS, Act
from lnh_services.hsm.tokens import Session
from lnh_services.hsm.uses import CachedKey, Prepared, check_today
from lnh_services.hsm.worker_core import WorkerCore

_BYTES: Final = (bytes,)


class _Use:
    """A permitted use of a cached key."""

    __slots__ = ("act", "key", "message", "operate")

    def __init__(self, key: CachedKey, operate: Prepared, message: Any, act: Act) -> None:
        self.key = key
        self.operate = operate
        self.message = message
        self.act = act


class Ready:
    """An opened request: a permitted use of a key, or several that came under one seal."""

    __slots__ = ("_fields", "_header", "_keys", "_together", "_uses", "entry")

    def __init__(self, entry: Entry, header: Header, keys: SessionKeys, uses: list[_Use], *, together: bool) -> None:
        self.entry = entry
        self._header = header
        self._keys = keys
        self._uses = uses
        self._together = together
        self._fields: dict[str, Any] = {}

    def act(self, core: WorkerCore) -> bool:
        """Use the keys; False if that failed, or the caches may no longer be used: then nothing counts as done.

        Of uses that came together each has its own outcome, so that one may fail.
        """
        replies: list[dict[str, Any]] = []
        outcomes: list[list[Any]] = []
        for use in self._uses:
            if not core.is_leased():
                return False
            try:
                reply = use.act(use.operate, use.message)
            except LnhError as error:
                if not self._together:
                    return False
                outcomes.append(error.to_wire())
            except Exception:  # `serve` meets it again, and says what it is
                return False
            else:
                replies.append(msgspec.to_builtins(reply, builtin_types=_BYTES))
                outcomes.append([0, replies[-1]])
        for use in self._uses:
            use.key.uses += len(use.message.items) if type(use.message) is UseMany else 1
        core.operations += len(self._uses)
        self._fields = {"outcomes": outcomes} if self._together else replies[0]
        return True

    def answer(self) -> Frames:
        """The frames of the sealed reply."""
        return [
            self._header.answer(Kind.REPLY).pack(),
            VOUCHED,
            channel.seal_reply(self._keys, self._header, self.entry.body, self._fields),
        ]


def open_ready(core: WorkerCore, entry: Entry) -> Ready | None:
    """Open a request whose session, keys and operations are cached; None for any other."""
    session = core.caches.sessions.get(entry.token)
    if session is None or not core.is_leased():
        return None
    try:
        header = Header.parse(entry.header)
        together = header.operation == USES.name
        if header.kind is not Kind.REQUEST or not (together or header.operation in ACTS):
            return None
        envelope = channel.open_request(session.keys, header, entry.body)
        core.check_times(session)
        core.check_envelope(OPERATIONS[header.operation], envelope)
        if together:
            asked = codec.convert(envelope.fields, Uses).uses
            if any(name not in TOGETHER for name, _ in asked):
                return None
        else:
            asked = ((header.operation, envelope.fields),)
        uses = [_use(core, session, header.route, name, fields) for name, fields in asked]
    except Exception:  # `serve` meets it again, and says what it is
        return None
    ready = [use for use in uses if use is not None]
    return Ready(entry, header, session.keys, ready, together=together) if len(ready) == len(uses) else None


def _use(core: WorkerCore, session: Session, route: bytes, name: str, fields: dict[str, Any]) -> _Use | None:
    """One use of a key, checked; None if something has to be looked up. Raises what forbids it."""
    served = ACTS[name]
    message: Any = codec.convert(fields, OPERATIONS[name].request)
    permissions.check(name, route, session.holder)
    key = core.caches.keys.get((route, message.handle))
    if key is None or message.sealed:
        return None
    operate = key.prepared.get((served.use, message.mechanism, message.parameters))
    if operate is None:
        return None
    check_today(key, core.utc())
    return _Use(key, operate, message, served.act)
