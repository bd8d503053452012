"""An hsm that answers what a client's requests say, and a few lines to say it; no socket, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lnh.net.request import Request
from lnh.net.requests import Requests
from lnh_common.errors import (
    Busy,
    DataLength,
    LnhError,
)
from lnh_common.messages.objects import SHOW, SIGN, USES
from lnh_common.wire import channel
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import SessionKeys
from lnh_common.wire.frames import Header, Kind

KEYS = SessionKeys.derive(b"s" * 32, b"token")
HANDLE = b"h" * 16
TIMEOUT = 10.0


@dataclass
class Hsm:
    """Acts once on each (connection, sequence); answers a repeat with the first answer. A use's answer is its data."""

    acted: dict[tuple[bytes, int], int] = field(default_factory=dict)
    reads: int = 0
    messages: int = 0
    busy: int = 0  # uses that go with others and are told Busy, from here on

    def serve(self, frames: list[bytes]) -> list[bytes]:
        self.messages += 1
        header = Header.parse(frames[0])
        envelope = channel.open_request(KEYS, header, frames[2])
        fields: dict[str, Any] = {"served": header.request_id}
        if envelope.sequence:
            name = (envelope.connection, envelope.sequence)
            self.acted[name] = self.acted.get(name, 0) or 1
        elif header.operation == USES.name:
            fields = {"outcomes": [self._use(each) for _, each in envelope.fields["uses"]]}
        elif header.operation == SIGN.name:
            fields = {"data": envelope.fields["data"]}
        else:
            self.reads += 1
        body = channel.seal_reply(KEYS, header, frames[2], fields)
        return [header.answer(Kind.REPLY).pack(), b"", body]

    def _use(self, fields: dict[str, Any]) -> list[Any]:
        if self.busy:
            self.busy -= 1
            return Busy("later").to_wire()
        if fields["data"] == b"":
            return DataLength("no data").to_wire()
        return [0, {"data": fields["data"]}]


def submit(requests: Requests, now: float, operation: Any = SHOW, timeout: float = TIMEOUT) -> Request:
    return requests.submit(now, 1.7e9, operation, {"handle": HANDLE}, timeout, token=b"token", seal=KEYS)


def use(requests: Requests, now: float, data: bytes, *, keys: SessionKeys = KEYS, timeout: float = TIMEOUT) -> Request:
    fields = {"handle": HANDLE, "mechanism": 1, "data": data, "parameters": b""}
    return requests.submit(now, 1.7e9, SIGN, fields, timeout, token=b"token", seal=keys)


def hint(request: Request, error: LnhError) -> list[bytes]:
    return wire.error_frames(request.header, error)


def reply(request: Request, value: dict[str, Any] | LnhError) -> list[bytes]:
    body = channel.seal_reply(KEYS, request.header, request.frames[2], value)
    return [request.header.answer(Kind.REPLY).pack(), b"", body]


def deliver(requests: Requests, now: float, hsm: Hsm) -> list[Request]:
    """Send what is due and take in its answers; what ended."""
    ended, due = requests.turn(now)
    for request in due:
        requests.sent(now, request)
    for request in due:
        ended += requests.receive(now, hsm.serve(request.frames))
    return ended
