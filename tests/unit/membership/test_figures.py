"""What a member tells of itself, the metrics made of it, the dashboard that shows them, and a line of `lnh top`."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from lnh_cli.nouns import top
from lnh_common.errors import Unreachable
from lnh_common.messages import backup, balancer, console, store
from lnh_common.messages.membership import MemberState, ServiceHealth, View
from lnh_common.messages.overview import Figures, MachineFigures, StoreFigures
from lnh_common.metrics import ROWS, Own
from lnh_common.wire import codec
from lnh_services.configuration import MetricsSettings, Settings
from lnh_services.initialise import initialise_member
from lnh_services.membership.figures import figures, machine, seen
from lnh_services.membership.metrics import Metrics, MetricsPort
from lnh_services.paths import MemberDirectory
from models import overviews
from processes import free_base_port

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana.json"
A, B = b"a" * 16, b"b" * 16

STATUS = store.Status(
    state="read-write", cluster=b"c" * 16, member=A, primary=A, epoch=3, in_sync=(A, B), last_index=90,
    committed_index=88, applied_index=87, items=12, bytes_on_disk=4096, commits_per_second=2.5, lease_ms=1400,
    lags=(store.Lag(member=B, index=80, heard_ms=20),),
)  # fmt: skip
DOOR = balancer.Status(
    state="serving", connections=3, requests_per_second=100.0, refused_per_second=0.0, p50=900, p99=4000, in_flight=2,
    waiting=1, retried=4, expired=5, dropped=6,
    backends=tuple(balancer.BackendView(name=f"worker-{n}", state=state, requests=0, work=0)
                 for n, state in enumerate(("serving", "down", "silent"))),
)  # fmt: skip
HSM = console.HsmView(
    state="activated", label="a", identity="", locked_memory=True, workers=3, partitions=1, cluster="", advice=()
)
BACKUP = backup.Status(schedule="daily at 03:00", backups=2, bytes_on_disk=700, last=1_700_000_000, overdue=True)
HEALTH = {"store": ServiceHealth(name="store", state="serving", milliseconds=3)}
VIEW = View(
    cluster=b"c" * 16,
    primary=A,
    epoch=3,
    services=(),
    groups=("east", "local"),
    members=tuple(
        MemberState(
            id=name.encode() * 16, name=name, address="h:1", role="primary" if name == "a" else "secondary",
            state=state, group=group, product="0.2.0", last_heard=1_700_000_000,
        )
        for name, state, group in (("a", "read-write", "local"), ("b", "unreachable", "east"))
    ),
)  # fmt: skip


def all_told() -> Figures:
    told = {"balancer": DOOR, "hsm": HSM, "backup": BACKUP}
    on = MachineFigures(disk_free=5, disk_total=10, users=1)
    return figures(STATUS, told, HEALTH, at=1_700_000_001_000, running=60, machine=on)


def test_a_member_tells_what_its_services_told() -> None:
    told = all_told()
    assert told.store == StoreFigures(
        last_index=90, committed_index=88, applied_index=87, in_sync=(A, B), items=12, bytes_on_disk=4096,
        commits_per_second=2.5, lease_ms=1400, lags=STATUS.lags, state=STATUS.state, primary=STATUS.primary,
    )  # fmt: skip
    assert told.balancer is not None
    assert told.balancer.p99 == 4000
    workers = (told.balancer.workers, told.balancer.workers_serving, told.balancer.workers_silent)
    assert workers == (3, 2, 1)
    assert told.hsm is not None
    assert told.hsm.locked_memory
    assert told.backup is not None
    assert told.backup.overdue


def test_a_service_that_does_not_answer_is_left_out() -> None:
    told = figures(None, {"balancer": None}, {}, at=1, running=0)
    assert (told.store, told.balancer, told.hsm, told.backup) == (None, None, None, None)


def test_figures_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    later = msgspec.to_builtins(all_told(), builtin_types=(bytes,))
    later["more"], later["store"]["new"] = 1, "field"
    assert codec.decode_as(codec.encode(later), Figures) == all_told()


def test_each_member_is_shown_with_what_it_told() -> None:
    shown = seen(VIEW, A, {A: all_told()}, {B: -40}, at=7)
    assert [(each.name, each.group, each.skew_ms, each.figures is not None) for each in shown.members] == [
        ("a", "local", 0, True), ("b", "east", -40, False),
    ]  # fmt: skip
    assert (shown.member, shown.primary, shown.groups, shown.at) == (A, A, ("east", "local"), 7)


def test_the_machine_is_looked_at(short_path: Path) -> None:
    directory = MemberDirectory(short_path)
    activation = short_path / "activation"
    settings = Settings(name="a", base_port=free_base_port())
    initialise_member(directory, settings)
    found = machine(directory, settings)
    assert 0 < found.disk_free <= found.disk_total
    assert (found.users, found.activation_beside) == (0, False), "no service has a socket yet"
    Path(directory.store_for_services.removeprefix("ipc://")).touch()
    assert machine(directory, settings).users == 2, "it sees nothing of another service's data"
    for service in ("hsm", "store"):
        kept = directory.data(service) / "kept"
        kept.touch()
        assert machine(directory, settings).users == 1, "it is one user, in reach of another's data"
        kept.unlink()
    activation.write_text("secret")
    assert directory.has_beside(str(activation))
    assert not directory.has_beside("nowhere")


# --- metrics


def test_every_metric_has_its_samples_when_everything_is_told() -> None:
    metrics = Metrics()
    assert list(metrics.collect()) == []
    metrics.put(Own("a", VIEW, all_told(), 1_700_000_010.0))
    families = {family.name: family for family in metrics.collect()}
    assert set(families) == {row.name for row in ROWS}
    assert all(family.samples for family in families.values())

    def values(name: str) -> list[tuple[dict[str, str], float]]:
        return [(sample.labels, sample.value) for sample in families[name].samples]

    assert values("lnh_member_lag_entries") == [({"member": "b"}, 10.0)]
    assert values("lnh_group_available") == [({"group": "east"}, 0.0), ({"group": "local"}, 1.0)]
    assert values("lnh_latency_seconds")[1] == ({"quantile": "0.99"}, 0.004)
    assert values("lnh_member_heard_seconds")[1] == ({"member": "b"}, 10.0)
    assert values("lnh_workers_serving") == [({}, 2.0)]
    ((_, lease),) = values("lnh_store_lease_seconds")
    assert lease == pytest.approx(1.4)


def test_what_is_not_told_has_no_sample() -> None:
    metrics = Metrics()
    metrics.put(Own("a", VIEW, figures(None, {}, {}, at=1, running=0), 0.0))
    without = {family.name for family in metrics.collect() if not family.samples}
    assert {"lnh_store_items", "lnh_clients", "lnh_hsm_activated", "lnh_disk_bytes"} <= without


def test_metrics_are_served_on_the_port_of_the_settings_until_it_is_closed() -> None:
    settings = MetricsSettings(port=free_base_port())
    port = MetricsPort(settings)
    port.open()
    try:
        port.metrics.put(Own("a", VIEW, all_told(), 1_700_000_010.0))
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'lnh_member_state{member="b",state="unreachable"} 1.0' in text
        assert "lnh_requests_retried_total 4.0" in text
        second = MetricsPort(settings)
        second.open()  # the port is taken: said in the log, and no reason to stop
        assert not second.is_open
        second.close()
    finally:
        port.close()
    again = MetricsPort(settings)
    again.open()
    assert again.is_open
    again.close()


def test_without_a_port_nothing_is_served() -> None:
    port = MetricsPort(MetricsSettings())
    port.open()
    assert not port.is_open
    port.close()


def expressions(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if isinstance(node.get("expr"), str) else []
        return own + [each for value in node.values() for each in expressions(value)]
    return [each for value in node for each in expressions(value)] if isinstance(node, list) else []


def test_the_dashboard_names_metrics_and_labels_that_there_are() -> None:
    asked = expressions(json.loads(DASHBOARD.read_text()))
    assert len(asked) >= 10
    labels = {f"{row.name}_total" if row.counts else row.name: set(row.labels) for row in ROWS}
    for expression in asked:
        names = re.findall(r"\blnh_\w+", expression)
        assert names, expression
        for name in names:
            assert name in labels, f"{expression}: there is no metric {name}"
        for name, selected in re.findall(r"\b(lnh_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)\s*[=!]", selected))
            assert used <= labels[name] | {"instance", "job"}, f"{expression}: {name} has no label {used}"


# --- lnh top


def drawn(look: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(look)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 250])
def test_top_fits_the_terminal_and_keeps_what_matters_most(width: int) -> None:
    shown = overviews.overview(*(overviews.sight(name, group="a group") for name in "abc"))
    columns = top.fitting(top.rows(shown), width)
    assert {"name", "group", "state", "lag", "ops/s", "p99 ms"} <= set(columns)
    assert (columns == list(top.COLUMNS)) is (width == 250)
    text = drawn(next(top.look_again(lambda: shown, 0, lambda: width)), width)
    assert text.count("read-write") == 4, "three members and the line about the whole, none of them broken"
    assert max(map(len, text.splitlines())) <= width


def test_top_shows_what_it_saw_last_while_nothing_answers() -> None:
    answers: list[Any] = [overviews.overview(), Unreachable("nobody there"), overviews.overview(epoch=4)]

    def overview() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    looks = top.look_again(overview, 0, lambda: 200)
    first, silent, again = (drawn(next(looks), 200) for _ in range(3))
    assert "no answer" not in first
    assert "epoch 3" in silent
    assert "no answer: nobody there" in silent
    assert "epoch 4" in again
    assert "no answer" not in again
    with pytest.raises(Unreachable):
        next(top.look_again(lambda: (_ for _ in ()).throw(Unreachable("nobody")), 0, lambda: 80))


def test_a_member_is_a_line_of_top_and_one_that_tells_nothing_a_line_with_gaps() -> None:
    behind = overviews.figures(store=StoreFigures(committed_index=4990, applied_index=4988, commits_per_second=1.25))
    shown = overviews.overview(
        overviews.sight("a"), overviews.sight("b", group="east", figures=behind),
        overviews.sight("c", state="unreachable", figures=None), groups=("east", "local"),
    )  # fmt: skip
    a, b, c = top.rows(shown)
    assert (a["role"], a["group"], a["lease"], a["lag"], a["ops/s"], a["p50 ms"], a["p99 ms"]) == (
        "primary", "local", "1400 ms", 0, "100.0", "0.90", "4.00",
    )  # fmt: skip
    assert (a["in flight"], a["waiting"], a["workers"], a["disk free"]) == (2, 0, "2/2", "50 %")
    assert (b["group"], b["lag"], b["lease"], b["writes/s"]) == ("east", 12, "none", "1.2")
    assert {name for name, value in c.items() if value != ""} == {"name", "group", "role", "state", "version"}
    assert top.summary(shown) == (
        "prod: 2 of 3 members read-write, groups east, local, epoch 3, 7 keyrings, 2 clients, 200 operations/s"
    )
