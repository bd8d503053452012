"""Keeps the invitations an HSM made: each serves one joining HSM, for 15 minutes. Pure: the time is passed in.

They are kept in the sealed state, so that one that was used or burnt stays so whatever happens to the process.

    open --right proof--> used      (only the very request that used it is answered again, while it lasts)
         --wrong proof--> burnt
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import InvitationBurnt, InvitationExpired, InvitationUnknown, InvitationUsed
from lnh_services.hsm.appliance.state import HsmState, InvitationStatus, Issued

_KEPT_SECONDS: Final = 24 * 3600  # so long after its end a refusal can still say what became of it


def issue(state: HsmState, nonce: bytes, now: int) -> HsmState:
    """Add a new invitation to the state.

    Args:
        nonce: 32 random bytes.
        now: UTC seconds.
    """
    kept = tuple(each for each in state.invitations if now < each.expires + _KEPT_SECONDS)
    made = Issued(nonce=nonce, expires=now + limits.INVITATION_SECONDS)
    return replace(state, invitations=(*kept, made)[-limits.INVITATIONS_KEPT :])


def check(state: HsmState, nonce: bytes, request: bytes, now: int) -> None:
    """Raise InvitationUnknown, InvitationBurnt, InvitationUsed or InvitationExpired unless the request may use it.

    Args:
        request: SHA-256 of the request that comes with it.
        now: UTC seconds.
    """
    found = next((each for each in state.invitations if each.nonce == nonce), None)
    if found is None:
        raise InvitationUnknown("this HSM made no such invitation")
    if found.status is InvitationStatus.BURNT:
        raise InvitationBurnt("the invitation was burnt: somebody tried it with a wrong cloning domain")
    if found.status is InvitationStatus.USED and found.used_by != request:
        raise InvitationUsed("the invitation was used by another member, or by an earlier attempt of this one")
    if now >= found.expires:
        raise InvitationExpired(
            f"the invitation expired {now - found.expires} s ago; it lasts {limits.INVITATION_SECONDS} s"
        )


def burn(state: HsmState, nonce: bytes) -> HsmState:
    """Burn this invitation: it is good for nothing any more, even for the request that used it before."""
    return _with(state, nonce, InvitationStatus.BURNT, b"")


def use(state: HsmState, nonce: bytes, request: bytes) -> HsmState:
    """Note that the request of this hash used this invitation."""
    return _with(state, nonce, InvitationStatus.USED, request)


def _with(state: HsmState, nonce: bytes, status: InvitationStatus, used_by: bytes) -> HsmState:
    return replace(
        state,
        invitations=tuple(
            replace(each, status=status, used_by=used_by) if each.nonce == nonce else each for each in state.invitations
        ),
    )
