"""Decides whether a client may ask now: rates by address, and how many requests are under way. Pure."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from lnh_common import limits
from lnh_common.errors import Busy
from lnh_common.rate import Rate
from lnh_rest.problems import Refused

_TOO_MANY: Final = 429
_NETWORK_BITS: Final = 64  # of an IPv6 address: who has one address has all that share these


@dataclass
class _Client:
    requests: Rate = field(default_factory=lambda: Rate(limits.REST_RATE))
    logins: Rate = field(default_factory=lambda: Rate(limits.REST_LOGIN_RATE, limits.REST_LOGIN_BURST))


class Admission:
    """Counts the requests of each address, and those under way."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._under_way = 0
        self._streams = 0

    def enter(self, now: float, address: str, *, is_login: bool) -> None:
        """Count a request that begins; raises Refused with 429, or 503 while too many are under way."""
        client = self._client(client_of(address))
        rates = [(client.requests, limits.REST_RATE)]
        if is_login:
            rates.append((client.logins, limits.REST_LOGIN_RATE))
        for rate, a_second in rates:
            if not rate.has(now):
                raise _too_many("logins" if a_second == limits.REST_LOGIN_RATE else "requests", a_second)
        for rate, _ in rates:
            rate.spend(1)
        if self._under_way >= limits.REST_IN_FLIGHT:
            raise Refused(Busy(f"{self._under_way} requests are under way"), headers={"Retry-After": "1"})
        self._under_way += 1

    def leave(self) -> None:
        """Count the end of a request that entered."""
        self._under_way -= 1

    def log_in(self, now: float, address: str) -> None:
        """Count a login of a request that entered; raises Refused with 429."""
        logins = self._client(client_of(address)).logins
        if not logins.has(now):
            raise _too_many("logins", limits.REST_LOGIN_RATE)
        logins.spend(1)

    def begin_stream(self) -> None:
        """Count a body or an answer of any length; raises Refused with 503 while too many are under way."""
        if self._streams >= limits.REST_STREAMS:
            raise Refused(Busy(f"{self._streams} requests of any length are under way"), headers={"Retry-After": "1"})
        self._streams += 1

    def end_stream(self) -> None:
        """Count the end of what began."""
        self._streams -= 1

    @property
    def under_way(self) -> int:
        """The number of requests under way."""
        return self._under_way

    def _client(self, name: str) -> _Client:
        client = self._clients.pop(name, None) or _Client()
        self._clients[name] = client
        while len(self._clients) > limits.REST_ADDRESSES:
            self._clients.popitem(last=False)
        return client


def _too_many(what: str, a_second: float) -> Refused:
    wait = max(1, math.ceil(1 / a_second))
    error = Busy(f"too many {what} from this address", {"advice": f"try again in {wait} s"})
    return Refused(error, _TOO_MANY, {"Retry-After": str(wait)})


def client_of(address: str) -> str:
    """Name the client that an address belongs to: an IPv4 address, or a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, _NETWORK_BITS), strict=False))
    return str(parsed)
