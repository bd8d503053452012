"""Turns errors into gRPC's status codes, and into a line that says what failed and what to do."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.text import shown

# A kind of error that has no row has that of its base, or the last one: something must be mended first.
CODES: Final[dict[type[LnhError], StatusCode]] = {
    errors.Internal: StatusCode.INTERNAL,
    errors.MalformedMessage: StatusCode.INVALID_ARGUMENT,
    errors.ArgumentInvalid: StatusCode.INVALID_ARGUMENT,
    errors.DataLength: StatusCode.INVALID_ARGUMENT,
    errors.EncryptedDataInvalid: StatusCode.INVALID_ARGUMENT,
    errors.ObjectUnknown: StatusCode.NOT_FOUND,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.OutcomeUnknown: StatusCode.UNAVAILABLE,
    errors.Busy: StatusCode.UNAVAILABLE,
    errors.Unreachable: StatusCode.UNAVAILABLE,
    errors.ConnectionClosed: StatusCode.UNAVAILABLE,
    errors.AnswerUnproven: StatusCode.UNAVAILABLE,
    errors.ChannelInvalid: StatusCode.UNAVAILABLE,
    errors.MemberBehind: StatusCode.UNAVAILABLE,
    errors.MemberReadOnly: StatusCode.UNAVAILABLE,
    errors.MemberExpelled: StatusCode.UNAVAILABLE,
    errors.NotActivated: StatusCode.UNAVAILABLE,
    errors.NoCluster: StatusCode.UNAVAILABLE,
    errors.StorageFailed: StatusCode.UNAVAILABLE,
    errors.AuditFailed: StatusCode.UNAVAILABLE,
    errors.SmkRolled: StatusCode.UNAVAILABLE,
    errors.PasswordIncorrect: StatusCode.UNAUTHENTICATED,
    errors.PasswordLocked: StatusCode.UNAUTHENTICATED,
    errors.PasswordMustChange: StatusCode.UNAUTHENTICATED,
    errors.TokenUnknown: StatusCode.UNAUTHENTICATED,
    errors.TokenExpired: StatusCode.UNAUTHENTICATED,
    errors.ClientUnknown: StatusCode.UNAUTHENTICATED,
    errors.ClientRevoked: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.PolicyForbids: StatusCode.PERMISSION_DENIED,
    errors.KeyFunctionNotPermitted: StatusCode.PERMISSION_DENIED,
    errors.KeyExpired: StatusCode.PERMISSION_DENIED,
    errors.LimitReached: StatusCode.RESOURCE_EXHAUSTED,
    errors.SealBroken: StatusCode.DATA_LOSS,
    errors.StateRolledBack: StatusCode.DATA_LOSS,
    LnhError: StatusCode.FAILED_PRECONDITION,
}


def code_of(error: LnhError) -> StatusCode:
    """Find the status code of an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def line_of(error: LnhError) -> str:
    """Say in one line what failed, and what to do about it."""
    advice = error.detail.get("advice")
    return shown(f"{error}; try: {advice if isinstance(advice, str) else error.advice}")
