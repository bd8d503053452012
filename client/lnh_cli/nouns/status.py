"""`lnh status`: the cluster and the member that answers, at a glance."""

from __future__ import annotations

import string
from typing import Any, Final

from lnh_cli.nouns.member import COLUMNS, row
from lnh_cli.support import terminal
from lnh_cli.support.command import Noun, verb
from lnh_cli.support.options import AdminOptions

_TIMES: Final = frozenset({"last", "next"})
_MICROSECONDS: Final = frozenset({"p50", "p99"})
_SHORT: Final = 24


def enter(app: Noun) -> None:
    """Enter `lnh status` into the command tree."""
    verb(app, "status", AdminOptions)(status)


def status(options: AdminOptions) -> None:
    """Show the cluster, its members, and the services of the member that answers."""
    with options.viewing(needs_sight=True) as session:
        view = session.status()
    record = terminal.fields(view)
    if options.json:
        options.show_json(record)
        return
    cluster = record["cluster"]
    members = cluster.pop("members")
    options.record(cluster)
    terminal.echo()
    options.rows(map(row, members), *COLUMNS)
    terminal.echo()
    services = [{**service, "detail": brief(service["detail"])} for service in record["services"]]
    options.rows(services, "name", "state", "detail")


def brief(detail: dict[str, Any]) -> dict[str, Any]:
    """What fits on a line: numbers, words and times, no ids and nothing nested."""
    return {
        name: _with_unit(name, value)
        for name, value in detail.items()
        if value != "" and not isinstance(value, dict | list) and not _is_id(value)
    }


def _with_unit(name: str, value: Any) -> Any:
    if name in _TIMES and value:
        return terminal.moment(value)
    return f"{value / 1000:.1f} ms" if name in _MICROSECONDS else value


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) > _SHORT and not set(value) - set(string.hexdigits)
