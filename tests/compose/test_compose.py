"""compose.yaml for real: containers that are cut off, killed and healed, looked at from the client's container.

`make test-compose` runs this; with `make test` it is skipped, since it takes minutes and an engine. In their order, the
tests work on one cluster; each leaves it whole, but for the last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compose.engine import Project, find, project
from waits import wait_until

WANTED = "LNH_TEST_COMPOSE"
MEMBERS = ("member-a", "member-b", "member-c", "member-d")
LOAD = Path(__file__).with_name("load.py").read_text()
DIRECTORY = ("--member-dir", "/var/lib/lnh/member")
WITHIN = 120.0

pytestmark = pytest.mark.skipif(not os.environ.get(WANTED), reason="containers: run by make test-compose")


@pytest.fixture(scope="module")
def containers() -> Iterator[Project]:
    """The whole of compose.yaml, up; down with its volumes afterwards."""
    engine, why = find()
    assert engine is not None, f"no container engine to be had: {why}"
    with project(engine) as made:
        made.compose("up", "-d", seconds=420)
        wait_until(
            lambda: made.inspect("bootstrap")["State"]["Status"] == "exited", "the end of the bootstrap", within=240
        )
        yield made


class Cluster:
    """The cluster as the commands in the client's container show it."""

    def __init__(self, containers: Project) -> None:
        self.containers = containers

    def lnh(self, *words: str, through: str = "", fails_with: int = 0) -> str:
        """A command on the client's machine; through another member than the registered one if one is named."""
        where = ("--member", f"{through}:7100") if through else ()
        return self.containers.run("client", "lnh", *words, *where, fails_with=fails_with)

    def members(self, through: str = "") -> dict[str, dict[str, Any]]:
        """Every member by name, as one of them sees it."""
        return {view["name"]: view for view in json.loads(self.lnh("member", "list", "--json", through=through))}

    def wait_for(self, *, through: str = "", **states: str) -> None:
        """Wait until a member sees these (a to d) so."""
        wanted = {f"member-{letter}": state for letter, state in states.items()}
        seen: dict[str, str] = {}
        problem = ""

        def are_so() -> bool:
            nonlocal seen, problem
            try:
                seen, problem = {name: view["state"] for name, view in self.members(through).items()}, ""
            except AssertionError as error:  # it cannot be asked just now
                problem = str(error)
            return not problem and wanted.items() <= seen.items()

        try:
            wait_until(are_so, f"{wanted}", within=WITHIN)
        except AssertionError as error:
            raise AssertionError(f"{error}; seen last: {seen} {problem}") from None

    def generate(self, label: str, *, through: str = "", fails_with: int = 0) -> str:
        words = ("key", "generate", "--keyring", "payments", label, "--type", "AES", "--bits", "256")
        return self.lnh(*words, through=through, fails_with=fails_with)

    def labels(self, through: str = "") -> set[str]:
        listed = json.loads(self.lnh("key", "list", "--keyring", "payments", "--json", through=through))
        return {each["label"] for each in listed}

    def promote(self, name: str) -> None:
        self.lnh("member", "promote", name)

    def sign(self, *, through: str = "") -> str:
        words = ("sign", "--keyring", "payments", "p256", "/etc/hostname", "--hex")
        return self.lnh(*words, through=through)

    def load(self, kind: str, meanwhile: Callable[[], None]) -> dict[str, Any]:
        """How operations fared in the client's container while something happened."""
        running = self.containers.start("client", "python", "-c", LOAD, kind)
        try:
            assert running.stdout is not None
            assert running.stdin is not None
            assert running.stdout.readline() == "ready\n"
            meanwhile()
            said, _ = running.communicate(timeout=30)
        finally:
            running.kill()
            running.wait()
        found: dict[str, Any] = json.loads(said)
        return found

    def states_own(self, service: str) -> str:
        """What a member that nobody may reach says of itself, at its own console; nothing while it starts."""
        look = "from lnh.console import Console; print(Console('/var/lib/lnh/member').progress().state)"
        try:
            return self.containers.run(service, "python", "-c", look).strip()
        except AssertionError:
            return ""


@pytest.fixture
def cluster(containers: Project) -> Cluster:
    """The cluster with all its members in step."""
    whole = Cluster(containers)
    whole.wait_for(a="read-write", b="read-write", c="read-write", d="read-write")
    return whole


def test_up_ends_with_four_members_in_two_groups_and_a_client_that_works(cluster: Cluster) -> None:
    containers = cluster.containers
    assert containers.inspect("bootstrap")["State"]["ExitCode"] == 0
    assert {name: view["group"] for name, view in cluster.members().items()} == {
        "member-a": "east", "member-b": "east", "member-c": "west", "member-d": "west",
    }  # fmt: skip
    look_up = "import socket, sys; print(*{socket.gethostbyname(name) for name in sys.argv[1:]})"
    assert len(containers.run("client", "python", "-c", look_up, *MEMBERS).split()) == len(MEMBERS)
    words = ("key", "generate", "--keyring", "payments", "p256", "--type", "EC", "--curve", "P-256")
    cluster.lnh(*words)
    assert cluster.sign()
    for name in MEMBERS:
        assert "p256" in cluster.labels(name)


def test_nothing_runs_as_root_or_sees_secrets_or_writes_where_it_should_not(cluster: Cluster) -> None:
    containers = cluster.containers
    look = """
import os, pathlib
assert os.getuid() == os.geteuid() == 10001
assert "CapEff:\\t0000000000000000" in pathlib.Path("/proc/self/status").read_text()
try:
    open("/opt/lnh/touched", "w")
except OSError as error:
    print(error.strerror)
print(*sorted(p.name for p in pathlib.Path("/var/lib/lnh/secrets").rglob("*") if p.is_file()))
"""
    seen = {service: containers.run(service, "python", "-c", look).splitlines() for service in ("member-b", "client")}
    assert seen["member-b"] == ["Read-only file system", "activation"]
    assert seen["client"] == ["Read-only file system", "admin krco krso po"]
    hsm = json.loads(containers.run("member-b", "lnh", "hsm", "show", *DIRECTORY, "--json"))
    assert hsm["locked_memory"] is ("LNH_MEMLOCK" not in containers.environment)


def test_the_clients_container_serves_applications_that_speak_pkcs11(cluster: Cluster) -> None:
    look = """
import ctypes, lnh_pkcs11.places
functions = ctypes.c_void_p()
ctypes.CDLL(str(lnh_pkcs11.places.MODULE)).C_GetFunctionList(ctypes.byref(functions))
listed = (ctypes.c_void_p * 5).from_address(functions.value + 8)
initialize, get_slot_list = (ctypes.CFUNCTYPE(ctypes.c_ulong)(listed[number]) for number in (0, 4))
count = ctypes.c_ulong()
print(initialize(None), get_slot_list(ctypes.c_ulong(1), None, ctypes.byref(count)), count.value)
"""
    assert cluster.containers.run("client", "python", "-c", look) == "0 0 1\n"
    assert "payments" in cluster.lnh("pkcs11", "slots")


def test_a_member_answers_for_its_health_and_is_not_well_without_a_service(cluster: Cluster) -> None:
    containers = cluster.containers
    health = ("lnh-member", *DIRECTORY, "--health")
    assert containers.inspect("member-c")["Config"]["Healthcheck"]["Test"] == ["CMD", *health]
    assert containers.run("member-c", *health) == "in order\n"
    stop = """
import os, pathlib, signal, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"lnh_services.backup" in (process / "cmdline").read_bytes().split(b"\\0"):
        os.kill(int(process.name), getattr(signal, sys.argv[1]))
"""
    containers.run("member-c", "python", "-c", stop, "SIGSTOP")

    def says(what: str, code: int) -> bool:
        try:
            return what in containers.run("member-c", *health, fails_with=code)
        except AssertionError:
            return False

    wait_until(lambda: says("backup is silent", 3), "a member that is not well", within=WITHIN)
    containers.run("member-c", "python", "-c", stop, "SIGCONT")
    wait_until(lambda: says("in order", 0), "a member that is well", within=WITHIN)


def test_the_bootstrap_run_again_changes_nothing_and_says_so(cluster: Cluster) -> None:
    said = cluster.containers.command("start", "--attach", cluster.containers.container("bootstrap"))
    assert "cluster demo is set up already" in said


def test_a_secondary_cut_off_is_read_only_and_catches_up_under_another_address(cluster: Cluster) -> None:
    containers = cluster.containers
    containers.cut("member-d")
    cluster.wait_for(a="read-write", b="read-write", c="read-write", d="unreachable")
    wait_until(lambda: cluster.states_own("member-d") == "read-only", "a member that knows it", within=WITHIN)
    assert containers.run("member-d", "lnh-member", *DIRECTORY, "--health") == "in order\n"
    cluster.generate("made-while-d-was-away")
    containers.join("member-d")
    cluster.wait_for(a="read-write", b="read-write", c="read-write", d="read-write", through="member-d")
    assert "made-while-d-was-away" in cluster.labels("member-d")


def test_without_the_primary_a_client_signs_through_others_and_writes_wait_for_it(cluster: Cluster) -> None:
    containers = cluster.containers

    def lose() -> None:
        containers.kill("member-a")
        cluster.wait_for(through="member-b", a="unreachable", b="read-only", c="read-only", d="read-only")

    fared = cluster.load("sign", lose)
    assert set(fared["outcomes"]) == {"done"}, fared
    assert "no lease from the primary" in cluster.generate("refused", through="member-c", fails_with=1)
    assert "no lease from the primary" in cluster.generate("refused", fails_with=1)
    containers.bring_back("member-a")
    cluster.wait_for(a="read-write", b="read-write", c="read-write", d="read-write")
    assert "refused" not in cluster.labels()


def test_a_member_whose_supervisor_dies_is_started_again_by_the_engine(cluster: Cluster) -> None:
    containers = cluster.containers
    before = containers.inspect("member-b")["State"]["StartedAt"]
    kill = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"--create" in (process / "cmdline").read_bytes().split(b"\\0") and int(process.name) != 1:
        os.kill(int(process.name), signal.SIGKILL)
"""
    containers.start("member-b", "python", "-c", kill).wait(60)  # which ends with its container, or a moment before
    wait_until(lambda: containers.inspect("member-b")["State"]["StartedAt"] != before, "another start", within=WITHIN)
    cluster.wait_for(a="read-write", b="read-write", c="read-write", d="read-write")


def test_members_move_between_groups_and_clients_stay_in_theirs(cluster: Cluster) -> None:
    cluster.lnh("member", "move", "member-b", "west")
    assert cluster.members()["member-b"]["group"] == "west"
    groups = {each["label"]: each["members"] for each in json.loads(cluster.lnh("group", "list", "--json"))}
    assert groups == {"local": [], "east": ["member-a"], "west": ["member-b", "member-c", "member-d"]}
    cluster.lnh("member", "move", "member-b", "east")
    assert cluster.members("member-d")["member-b"]["group"] == "east"


def test_promotion_under_load_and_the_loss_of_the_primary_for_good(cluster: Cluster) -> None:
    containers = cluster.containers
    made = cluster.load("create", lambda: cluster.promote("member-c"))
    assert set(made["outcomes"]) <= {"done", "MemberReadOnly"}, made
    assert cluster.members()["member-c"]["role"] == "primary"
    assert set(made["made"]) <= cluster.labels("member-d")

    containers.kill("member-c")
    cluster.wait_for(a="read-only", b="read-only", c="unreachable", d="read-only")
    cluster.lnh("member", "delete", "member-c", "--yes")
    cluster.wait_for(a="read-write", b="read-write", d="read-write")
    assert set(made["made"]) <= cluster.labels("member-d")
    cluster.generate("made-without-c")
    containers.bring_back("member-c")
    wait_until(lambda: cluster.states_own("member-c") in ("expelled", "none"), "a member that is none", within=WITHIN)
    assert "member-c" not in cluster.members()
