"""`lnh approval`: what waits for a second person, by the cluster's policy `dual_control`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import noun, verb
from lnh_cli.support.options import AdminOptions

if TYPE_CHECKING:
    from lnh.admin import Administration, ApprovalView

app = noun("approval", "What waits for a second person (policy dual_control).")

_FEWEST: Final = 4  # digits of an id, which then must be those of one alone


def _digits(text: str) -> str:
    if len(text) < _FEWEST or set(text) - set("0123456789abcdef"):
        terminal.refuse(f"{text!r} is no id", f"{_FEWEST} to 32 of its digits: lnh approval list", terminal.USAGE)
    return text


Id = Annotated[str, typer.Argument(help="The id, or so many of its first digits as tell it.", callback=_digits)]


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List what waits, and what did until lately."""
    with options.administration() as session:
        found = [_row(each) for each in session.approvals()]
    if not options.json:
        found = [
            {
                **each,
                "requesters": ", ".join(each["requesters"]),
                "deciders": ", ".join(each["deciders"]),
                "arguments": ", ".join([each["about"], *_words(each["arguments"])]).removeprefix(", "),
                "expires": terminal.moment(each["expires"]),
            }
            for each in found
        ]
    options.rows(found, "id", "operation", "arguments", "requesters", "decision", "deciders", "expires")


@verb(app, "approve", AdminOptions)
def approve(options: AdminOptions, approval: Id) -> None:
    """Approve what another user asked for; that user then runs the same command again."""
    with options.administration() as session:
        done = session.approve(_found(session, approval).id)
    who = " and ".join(done.requesters)
    options.say(f"approved {done.operation} by {who}, who now runs the same command again, once", **_row(done))


@verb(app, "deny", AdminOptions)
def deny(options: AdminOptions, approval: Id) -> None:
    """Deny what was asked for: another's, one's own, or one that was approved and not used yet."""
    with options.administration() as session:
        done = session.deny(_found(session, approval).id)
    options.say(f"denied {done.operation} by {' and '.join(done.requesters)}", **_row(done))


def _found(session: Administration, digits: str) -> ApprovalView:
    from lnh_common.errors import NameUnknown

    found = [each for each in session.approvals(current=True) if each.id.hex().startswith(digits)]
    if len(found) != 1:
        what = f"{len(found)} requests have ids that begin with {digits}" if found else f"no request {digits} waits"
        raise NameUnknown(what, {"advice": "lnh approval list shows them"})
    return found[0]


def _row(view: ApprovalView) -> dict[str, Any]:
    return {**terminal.fields(view), "decision": view.decision.value}


def _words(arguments: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in arguments.items()]
