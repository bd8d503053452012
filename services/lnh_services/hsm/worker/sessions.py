"""Opens what a client proves itself by, a credential or a token, and knows for how long a session lives.

What a token rests on is checked once (`handlers/session.py`); the session is kept with the names of all that, and
dropped when one of these changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lnh_common import limits
from lnh_common.errors import (
    ClientRevoked,
    ClientUnknown,
    LnhError,
    MemberReadOnly,
    TokenExpired,
    TokenUnknown,
    Unreachable,
)
from lnh_common.wire import channel
from lnh_common.wire.channel import OpenedCredential
from lnh_common.wire.frames import Header
from lnh_services.hsm.auth.tokens import OpenSession, Token, open_token, token_epoch
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import OPENING_RECORD, ClientRecord, OpeningRecord, session_instance
from lnh_services.hsm.worker.certainty import Certainty
from lnh_services.hsm.worker.context import Identity
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.rollback_guard import Ahead


class Sessions(Certainty):
    """Opens credentials, tokens and sessions.

    Args:
        check_token: checks all that an opened token rests on, and makes it a session.
        utc: UTC seconds.
        boot: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        check_token: Callable[[Any, bytes, Token, Ahead], Steps[OpenSession]],
        utc: Callable[[], float],
        boot: Callable[[], float],
    ) -> None:
        self.check_token = check_token
        super().__init__(utc, boot)

    def open_credential(self, header: Header, body: bytes) -> OpenedCredential:
        """Open a message with a credential; raises ChannelInvalid, and as `open_token`."""
        identity = self.secrets()
        epoch = channel.credential_epoch(body)
        private = self._channel_keys.get(epoch)
        if private is None:
            seed = identity.seed(epoch)
            if seed is None:
                raise _unknown_epoch(identity, epoch, f"channel epoch {epoch} is over; say hello again")
            private = channel.channel_private_key(Purpose.CHANNEL.derive(seed.seed))
            self._channel_keys[epoch] = private
        return channel.open_credential(header, body, identity.secrets.cluster, private)

    def signing_client(self, credential: OpenedCredential) -> Steps[ClientRecord | None]:
        """Return the registered client that made the message, or None for an unregistered one."""
        if not credential.client:
            return None
        record = yield from self.record(ClientRecord, credential.client)
        if record is None:
            raise ClientUnknown(f"no client {credential.client.hex()} is registered here")
        credential.check_signature(record.sign_key)
        if record.revoked:
            raise ClientRevoked(f"client {record.name!r} was revoked").for_good()
        return record

    def open_token(self, token: bytes) -> Token:
        """Open a token; raises TokenUnknown, or Unreachable where the epoch has not come to this member yet."""
        epoch, sealed = token_epoch(token)
        identity = self.secrets()
        seed = identity.seed(epoch)
        if seed is None:
            raise _unknown_epoch(identity, epoch, f"a session token of channel epoch {epoch}, which is over")
        return open_token(sealed, identity.secrets.cluster, epoch, seed.seed)

    def open_session(self, token: bytes, opened: Token, ahead: Ahead | None = None) -> Steps[OpenSession]:
        """Return the session of an opened token; raises TokenExpired, and what `check_token` raises."""
        self.check_time(opened)
        disturbed = self.disturbed
        session = yield from self.check_token(self, token, opened, ahead or Ahead())
        if session.alive and self.may_cache_since(disturbed):
            self.caches.sessions.put(token, session)
        return session

    def check_time(self, token: Token) -> None:
        """Raise TokenExpired for a token whose time is over."""
        if self.utc() > token.expires + limits.CLOCK_TOLERANCE:
            raise TokenExpired("this session's token has expired")

    def check_times(self, session: OpenSession) -> None:
        """Raise TokenExpired, or MemberReadOnly when this member has been read-only for longer than policy allows."""
        self.check_time(session.token)
        if self.read_only_since is not None and self.boot() - self.read_only_since > session.read_only_max:
            raise MemberReadOnly(
                f"this member has been read-only for more than {session.read_only_max} s (policy read_only_max): "
                "its tokens may have been revoked since; use another member, or connect this one to the primary"
            )

    def check_alive(self, request: Request[Any]) -> Steps[None]:
        """Check the session anew when what it rests on may have changed while the request waited.

        Raises TokenUnknown (or what it was replaced by), TokenExpired or ClientRevoked when it is over.
        """
        session = request.who
        if not session.alive:
            request.session = yield from self.open_session(session.sealed, self.open_token(session.sealed))

    def session_instance(self) -> Steps[bytes]:
        """Return the instance that sessions are opened under now."""
        opening = yield from self.record(OpeningRecord, OPENING_RECORD)
        yield from self.started()
        assert self.cluster is not None, "started() read the cluster record"
        return session_instance(self.cluster, opening)


def _unknown_epoch(identity: Identity, epoch: int, over: str) -> LnhError:
    """Make the error of a channel epoch that this worker has no seed of.

    Args:
        over: the words for an epoch that is over. An epoch later than all here is still to come, and other members have
            it: a client takes Unreachable for the word of one member, and asks another.
    """
    if epoch > max(seed.epoch for seed in identity.secrets.channel):
        return Unreachable(f"channel epoch {epoch} has not come to this member yet")
    return TokenUnknown(over)
