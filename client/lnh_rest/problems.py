"""Turns errors into problem details (RFC 9457): the row of `lnh_common.errors`, and the status that goes with it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from lnh_common import errors
from lnh_common.errors import ERRORS, LnhError
from lnh_common.text import shown
from lnh_rest.base import Body

MEDIA_TYPE: Final = "application/problem+json"

_NOT_YOURS: Final = 403
_UNPROCESSABLE: Final = 422
_CONFLICT: Final = 409
_AWAY: Final = 503

# A kind of error that has no row has that of its base.
STATUSES: Final[dict[type[LnhError], int]] = {
    errors.Internal: 500,
    errors.MalformedMessage: 400,
    errors.UnsupportedVersion: 501,
    errors.UnknownOperation: 501,
    errors.DeadlineExceeded: 504,
    errors.Busy: _AWAY,
    errors.Unreachable: _AWAY,
    errors.OutcomeUnknown: 504,
    errors.ConnectionClosed: _AWAY,
    errors.ClockSkew: _AWAY,
    errors.PasswordIncorrect: 401,
    errors.PasswordLocked: 429,
    errors.PasswordMustChange: _NOT_YOURS,
    errors.PasswordInvalid: _UNPROCESSABLE,
    errors.PermissionDenied: _NOT_YOURS,
    errors.TokenUnknown: 401,
    errors.TokenExpired: 401,
    errors.ClientUnknown: 404,
    errors.ClientRevoked: _AWAY,
    errors.FingerprintMismatch: _AWAY,
    errors.ClusterIdentityChanged: _AWAY,
    errors.ChannelInvalid: _AWAY,
    errors.AnswerUnproven: _AWAY,
    errors.KeyringUnknown: 404,
    errors.ObjectUnknown: 404,
    errors.KeyTypeInconsistent: _UNPROCESSABLE,
    errors.KeyFunctionNotPermitted: _UNPROCESSABLE,
    errors.MechanismInvalid: _UNPROCESSABLE,
    errors.MechanismParameterInvalid: _UNPROCESSABLE,
    errors.TemplateInconsistent: _UNPROCESSABLE,
    errors.TemplateIncomplete: _UNPROCESSABLE,
    errors.AttributeInvalid: _UNPROCESSABLE,
    errors.AttributeReadOnly: _UNPROCESSABLE,
    errors.AttributeSensitive: _NOT_YOURS,
    errors.DataLength: _UNPROCESSABLE,
    errors.EncryptedDataInvalid: _UNPROCESSABLE,
    errors.SignatureInvalid: _UNPROCESSABLE,
    errors.KeyExpired: _NOT_YOURS,
    errors.ActionProhibited: _NOT_YOURS,
    errors.KeySizeRange: _UNPROCESSABLE,
    errors.PolicyForbids: _NOT_YOURS,
    errors.SealBroken: 500,
    errors.StateRolledBack: 500,
    errors.WrappedKeyInvalid: _UNPROCESSABLE,
    errors.KeyUnextractable: _NOT_YOURS,
    errors.StreamLost: _AWAY,
    errors.MemberReadOnly: _AWAY,
    errors.VersionConflict: 412,
    errors.LimitReached: _CONFLICT,
    errors.NameTaken: _CONFLICT,
    errors.NameUnknown: 404,
    errors.NotActivated: _AWAY,
    errors.NotInitialised: _AWAY,
    errors.AlreadyDone: _CONFLICT,
    errors.NoCluster: _AWAY,
    errors.StorageFailed: 507,
    errors.ArgumentInvalid: _UNPROCESSABLE,
    errors.ConfigurationInvalid: 500,
    errors.FileModeUnsafe: 500,
    errors.PartitionUnknown: 404,
    errors.AuditFailed: _AWAY,
    errors.ActivationFailed: _AWAY,
    errors.PartitionDisabled: _CONFLICT,
    errors.NotPossible: _CONFLICT,
    errors.MemberBehind: _AWAY,
    errors.SmkRolled: _AWAY,
    errors.ApprovalNeeded: _CONFLICT,
    errors.TpmFailed: _AWAY,
    errors.DomainMismatch: _CONFLICT,
    errors.InvitationExpired: _CONFLICT,
    errors.InvitationUsed: _CONFLICT,
    errors.InvitationBurnt: _CONFLICT,
    errors.InvitationUnknown: _CONFLICT,
    errors.MemberExpelled: _AWAY,
    errors.ArchiveInvalid: _CONFLICT,
    errors.KeyFileInvalid: _UNPROCESSABLE,
    errors.PassphraseIncorrect: _UNPROCESSABLE,
    errors.CertificateInvalid: _UNPROCESSABLE,
}
# What the service answers besides, under a status of its own.
OWN_STATUSES: Final[dict[int, str]] = {
    400: "the request has not the form that the document describes",
    404: "no such path",
    405: "the path does not have this method; `Allow` names those it has",
    408: "the body did not come in time",
    411: "the body is of any length and does not say of which",
    412: "the object has another version than `If-Match` names",
    413: "the body is too long",
    415: "the body is not of the media type that the path takes",
    416: "the answer has fewer bytes than `Range` begins with",
    422: "the `Idempotency-Key` was used for another request, or no page gave the cursor",
    428: "the change names no version by `If-Match`",
    431: "the headers are too long",
    429: "too many requests, or logins, from this address; `Retry-After` says when",
}
# The kinds that those statuses come with, where no kind has them for its own.
OWN_KINDS: Final[dict[int, type[LnhError]]] = {
    405: errors.UnknownOperation,
    408: errors.DeadlineExceeded,
    411: errors.ArgumentInvalid,
    413: errors.LimitReached,
    415: errors.MalformedMessage,
    416: errors.ArgumentInvalid,
    428: errors.ArgumentInvalid,
    431: errors.LimitReached,
}
_TOLD: Final = frozenset({"approval", "decision", "expires", "item", "whole_until", "behind_ms"})


class Problem(Body, kw_only=True):
    """Say what was refused and what to do about it (RFC 9457).

    Args:
        type: the path that describes this kind of error.
        title: describes the kind.
        status: the HTTP status.
        detail: what failed this time.
        instance: names the request, as the service's log does.
        error, code: the product's name and number for the kind.
        ckr: the PKCS#11 return value.
        advice: what to do.
        about: further facts, such as the id of the approval that is waited for.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: str
    code: int
    ckr: str
    advice: str
    about: dict[str, Any] = {}


class Refused(Exception):
    """A refusal under a status or headers of its own.

    Args:
        error: of the product's table.
        status: None for the error's.
        headers: of the answer.
    """

    def __init__(self, error: LnhError, status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.error: Final = error
        self.status: Final = status_of(error) if status is None else status
        self.headers: Final = dict(headers or {})


def status_of(error: LnhError) -> int:
    """Find the status of an error."""
    return status_of_kind(type(error))


def status_of_kind(kind: type[LnhError]) -> int:
    """Find the status of a kind of error: its own, or that of its base."""
    return next((STATUSES[each] for each in kind.__mro__ if each in STATUSES), 500)


def title_of(kind: type[LnhError]) -> str:
    """Describe a kind of error: the first line of its docstring."""
    return (inspect.getdoc(kind) or kind.__name__).partition("\n")[0]


def path_of(kind: type[LnhError]) -> str:
    """Name the path that describes a kind of error."""
    return f"/v1/problems/{kind.__name__}"


def problem(refused: Refused, request: str) -> Problem:
    """Make the problem details of a refusal.

    Args:
        request: the id of the request.
    """
    error = refused.error
    kind = type(error)
    advice = error.detail.get("advice")
    return Problem(
        type=path_of(kind),
        title=title_of(kind),
        status=refused.status,
        detail=shown(str(error)),
        instance=f"urn:uuid:{request}",
        error=kind.__name__,
        code=kind.code,
        ckr=kind.ckr,
        advice=shown(advice) if isinstance(advice, str) else kind.advice,
        about={name: value for name, value in error.detail.items() if name in _TOLD},
    )


def kinds() -> list[type[LnhError]]:
    """List every kind of error, by code."""
    return [ERRORS[code] for code in sorted(ERRORS)]
