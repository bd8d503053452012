"""The bootstrap of containers, on members of this machine: cut off after every step, it completes; done, it rests."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest

import lnh
from lnh import admin
from lnh.console import Console
from lnh_cli import bootstrap
from lnh_cli.bootstrap import AUDIENCES, Bootstrap, Plan
from lnh_common.errors import ConfigurationInvalid
from lnh_services import member as supervisor
from processes import Processes, free_base_port
from waits import wait_until

pytestmark = pytest.mark.several


def is_healthy(member: Path) -> bool:
    return supervisor.main(["--member-dir", str(member), "--health"]) == 0


def _ignore(_: str) -> None:
    """Nobody listens."""


def test_secrets_are_drawn_once_each_for_those_who_need_it_and_given_ones_count(tmp_path: Path) -> None:
    root, given = tmp_path / "secrets", tmp_path / "given"
    given.mkdir()
    (given / "admin").write_text("the admin's\n")
    bootstrap.provide_secrets(root, given, _ignore)
    there = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert set(there) == {f"{audience}/{name}" for audience, names in AUDIENCES.items() for name in names}
    assert there["client/admin"] == "the admin's\n"
    assert len(set(there.values())) == len(there)
    assert all(len(text) >= 24 for name, text in there.items() if name != "client/admin")
    for name in there:
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o400

    said: list[str] = []
    bootstrap.provide_secrets(root, given, said.append)
    assert said == []
    assert {name: (root / name).read_text() for name in there} == there
    (given / "po").write_text("the PO's")
    bootstrap.provide_secrets(root, given, said.append)
    assert said == ["po: as given"]
    assert {name: (root / name).read_text() for name in there} == {**there, "client/po": "the PO's"}


def test_an_empty_secret_is_refused_and_leaves_the_one_of_before(tmp_path: Path) -> None:
    bootstrap.provide_secrets(tmp_path / "secrets", None, _ignore)
    before = (tmp_path / "secrets/bootstrap/so").read_text()
    (tmp_path / "so").write_text(" \n")
    with pytest.raises(ConfigurationInvalid, match="so has 2 bytes"):
        bootstrap.provide_secrets(tmp_path / "secrets", tmp_path, _ignore)
    assert (tmp_path / "secrets/bootstrap/so").read_text() == before


class CutOffError(Exception):
    """The one-shot service was stopped here."""


def test_a_bootstrap_cut_off_after_every_step_completes_and_then_changes_nothing(
    processes: Processes, short_path: Path
) -> None:
    root = short_path
    bootstrap.provide_secrets(root / "secrets", None, _ignore)
    for name in ("a", "b"):
        processes.watch(root / name)
        processes.start(
            "-m", "lnh_services.member", "--member-dir", str(root / name), "--create",
            LNH_NAME=f"member-{name}", LNH_BASE_PORT=str(free_base_port()), LNH_WORKERS="1",
            LNH_ACTIVATION_FILE=str(root / "secrets/member/activation"),
        )  # fmt: skip
    plan = Plan(root, ("a", "b"), "demo", {"east": ("a",), "west": ("b",)})
    (plan.notes / "invitation-b").write_text("lnh-invitation-1\ndamaged")  # cut off while it was written
    done: list[str] = []

    def say(text: str) -> None:
        if not text.startswith("waiting"):
            done.append(text)
            raise CutOffError

    while not plan.finished.exists():
        with pytest.raises(CutOffError):
            Bootstrap(plan, say).run()
        assert len(done) < 30, done
    assert len(set(done)) == len(done), "no step was done twice"
    for what in ("HSM initialised", "cluster demo created", "client: registered", "member-b: joined", "in group west"):
        assert any(what in each for each in done), what

    password = plan.secret("krco")
    with lnh.connect("demo", directory=root / plan.client) as cluster:
        with cluster.keyring("payments").login(lnh.Role.KRCO, password) as session:
            assert not list(session.find())
        with admin.login(cluster.connection, "admin", plan.secret("admin")) as administration:
            members = [(one.name, one.state, one.group) for one in administration.members()]
    assert members == [("member-a", "read-write", "east"), ("member-b", "read-write", "west")]
    for name in ("a", "b"):
        wait_until(partial(is_healthy, root / name), "a healthy member")

    told: list[str] = []
    before = _acts(root / "a")
    assert Bootstrap(plan, told.append).run() is False
    assert told == [f"cluster demo is set up already ({plan.finished}); nothing was changed"]
    assert _acts(root / "a") == before


def _acts(member: Path) -> int:
    """How many acts the member's audit trail has, of anybody."""
    with Console(member) as console:
        return console.verify_audit().records
