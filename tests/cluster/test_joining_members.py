"""Members that join and leave: real processes and the commands; stores are small ones, but for the last test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lnh_common
from commands import Forked
from lnh_cli.demo.local import StepFailed
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError, NoCluster, PermissionDenied, Unreachable
from lnh_common.messages import balancer, console, membership, store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.hsm import ATTACH, AttachWorker
from lnh_services.configuration import Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from models.small_store import Log, Loop, SmallStore
from processes import Processes, ask, free_base_port, talk_to
from waits import wait_until

pytestmark = pytest.mark.several

SERVICES = ("hsm", "membership", "balancer")
SECRETS = {name: f"{name} password" for name in ("so", "admin", "po", "activation")}
DOMAIN = "the cloning domain"
BIN = Path(sys.executable).parent
OTHER_VERSION = Path(__file__).with_name("other_version.py")


class Appliance:
    """One member directory, its small store, and the services that were started."""

    def __init__(self, place: Place, name: str, version: str = "") -> None:
        self.place, self.name = place, name
        self.directory = MemberDirectory(place.root / name)
        self.settings = Settings(name=name, base_port=free_base_port(), workers=1)
        initialise_member(self.directory, self.settings)
        place.processes.watch(self.directory.root)
        self.store = SmallStore(self.directory, place.log, self.info)
        if not place.real_stores:
            place.loop.run(self.store.start())
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        services = (*(("store",) if place.real_stores else ()), *SERVICES)
        for service in services:
            self.begin(service, version)
        for service in services:
            self.until_serving(service)

    def begin(self, service: str, version: str = "") -> None:
        """Start it; as another version of the product if one is named."""
        module = f"lnh_services.{service}"
        run = (str(OTHER_VERSION), version, module) if version else ("-m", module)
        self.running[service] = self.place.processes.start(*run, "--member-dir", str(self.directory.root))

    def start(self, service: str, version: str = "") -> None:
        """Start it and wait until it answers."""
        self.begin(service, version)
        self.until_serving(service)

    def until_serving(self, service: str) -> None:
        doors: dict[str, tuple[str, Operation[Empty, Any]]] = {
            "hsm": (self.directory.hsm_console, console.HSM_SHOW),
            "store": (self.directory.store_for_services, store.STATUS),
            "membership": (self.directory.membership_for_services, membership.STATUS),
            "balancer": (self.directory.balancer_status, balancer.STATUS),
        }
        wait_until(partial(ask, *doors[service]), f"an answer of {service}")

    def kill(self, service: str) -> None:
        process = self.running.pop(service)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def info(self, member: bytes) -> store.MemberInfo:
        key = curve.KeyPair.load(self.directory.member_keys).raw_public
        port = self.settings.base_port
        return store.MemberInfo(id=member, name=self.name, host="127.0.0.1", port=port, key=key)

    def lnh(self, *words: str, fails: bool = False) -> str:
        """A command at this member, through its door; what it said, or the refusal."""
        environment = {
            **os.environ, **self.place.environment,
            "LNH_MEMBER_DIR": str(self.directory.root), "LNH_MEMBER": f"127.0.0.1:{self.settings.base_port}",
        }  # fmt: skip
        done = Forked(("lnh", *words), environment).wait()
        if (done.code != 0) is not fails:
            raise StepFailed(f"{words}: {done.out}{done.err}")
        return done.err if fails else done.out

    def admin(self, *words: str, fails: bool = False) -> str:
        """A command as an admin, trusting the cluster's fingerprint."""
        return self.lnh(*words, "--fingerprint", self.place.fingerprint, "--timeout", "30", fails=fails)

    def at_console(self, operation: Operation[Any, Any], message: Message) -> Any:
        with Caller(self.directory.hsm_console) as caller:
            return caller.ask(operation, message, timeout=60)

    def prepared(self, domain: str = DOMAIN, admin: str = "") -> None:
        """Initialised, with the cluster package."""
        if admin:
            init = console.InitAppliance(admin=admin, password=SECRETS["admin"])
            self.at_console(console.APPLIANCE_INIT, init)
        activation = SECRETS["activation"].encode()
        hsm = console.InitHsm(label=self.name, so_password=SECRETS["so"], activation=activation, domain=domain)
        self.at_console(console.HSM_INIT, hsm)
        package = console.InstallPackage(so_password=SECRETS["so"], name="cluster")
        self.at_console(console.PACKAGE_INSTALL, package)

    def activate(self) -> None:
        activation = SECRETS["activation"].encode()
        self.at_console(console.HSM_ACTIVATE, console.Activate(activation=activation))

    def invited(self) -> Path:
        file = self.place.root / f"invitation-{len(list(self.place.root.glob('invitation-*')))}"
        self.admin("member", "invite", "--output", str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        return file

    def cluster(self) -> console.ConsoleCluster:
        return ask(self.directory.hsm_console, console.CONSOLE_CLUSTER)

    def secrets(self) -> Any:
        with Caller(self.directory.hsm_core) as caller:
            return caller.ask(ATTACH, AttachWorker(number=9, worker=bytes(16)), timeout=10)

    def wiped(self) -> bool:
        with suppress(LnhError):
            found = self.cluster()
            return not found.created and not found.phase
        return False


class Place:
    """Several appliances, what they share, and the secrets of their people."""

    def __init__(self, root: Path, processes: Processes, *, real_stores: bool = False) -> None:
        self.root, self.processes, self.real_stores = root, processes, real_stores
        self.loop, self.log = Loop(), Log()
        self.fingerprint = ""
        self.files = {name: self.secret(name, text) for name, text in SECRETS.items()}
        self.environment = {
            "LNH_CONFIG": str(root / "client"), "XDG_RUNTIME_DIR": str(root),
            **{f"LNH_{name.upper()}_PASSWORD_FILE": str(file) for name, file in self.files.items()},
        }  # fmt: skip
        self.appliances: list[Appliance] = []

    def secret(self, name: str, text: str) -> Path:
        path = self.root / f"secret-{name}"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def appliance(self, name: str, version: str = "") -> Appliance:
        self.appliances.append(Appliance(self, name, version))
        return self.appliances[-1]

    def first(self) -> Appliance:
        """An appliance with a cluster."""
        one = self.appliance("a")
        one.prepared(admin="admin")
        create = console.CreateCluster(so_password=SECRETS["so"], label="prod", po_password=SECRETS["po"])
        one.at_console(console.CLUSTER_CREATE, create)
        self.fingerprint = one.cluster().fingerprint
        return one


@pytest.fixture
def place(short_path: Path, processes: Processes) -> Iterator[Place]:
    made = Place(short_path, processes)
    yield made
    for one in made.appliances:
        made.loop.run(one.store.stop())
    made.loop.close()


@pytest.fixture
def whole(short_path: Path, processes: Processes) -> Iterator[Place]:
    """Appliances whose stores are real too."""
    made = Place(short_path, processes, real_stores=True)
    yield made
    made.loop.close()


def joined(one: Appliance, invitation: Path) -> dict[str, Any]:
    return json.loads(one.lnh("cluster", "join", "--invitation", str(invitation), "--json"))  # type: ignore[no-any-return]


def listed(one: Appliance) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(one.admin("member", "list", "--json"))}


def told_at_once(one: Appliance) -> str:
    """What an administrator hears of a member that serves nobody, and not that the deadline is over."""
    deadline = ("--timeout", f"{limits.DEADLINE:g}")
    return one.lnh("member", "list", "--fingerprint", one.place.fingerprint, *deadline, fails=True)


def until_listed(one: Appliance, condition: Callable[[dict[str, dict[str, Any]]], bool], what: str) -> None:
    """As a command lists them. A command costs many times what asking the member's membership does: that is asked first."""
    door = one.directory.membership_for_services

    def are_so() -> bool:
        return condition({each.name: msgspec.structs.asdict(each) for each in ask(door, membership.STATUS).members})

    wait_until(are_so, what, within=30, every=0.05)
    wait_until(lambda: condition(listed(one)), what, within=30, every=0.2)


def test_a_member_joins_is_promoted_leaves_and_joins_again(place: Place) -> None:
    a, b = place.first(), place.appliance("b")
    b.prepared(admin="own-admin")
    told = joined(b, a.invited())
    assert (told["label"], told["state"], told["fingerprint"]) == ("prod", "read-write", place.fingerprint)
    mine, theirs = a.secrets(), b.secrets()
    assert (theirs.smk, theirs.identity, theirs.channel) == (mine.smk, mine.identity, mine.channel)

    # The joining appliance's own admin is none any more; the cluster's works there.
    until_listed(
        b,
        lambda seen: {name: each["state"] for name, each in seen.items()} == dict.fromkeys("ab", "read-write"),
        "both",
    )
    refused = b.admin("user", "list", "--user", "own-admin", fails=True)
    assert "password" in refused
    assert json.loads(b.admin("member", "show", "a", "--json"))["role"] == "primary"
    until_listed(a, lambda seen: seen["b"]["state"] == "read-write" and seen["b"]["product"] != "", "b, seen by a")

    # The primary does not leave, nor is it removed.
    for words in (("cluster", "leave", "--yes"), ("member", "remove", "a", "--yes")):
        refusal = a.admin(*words, fails=True)
        assert "is the primary" in refusal
        assert "lnh member promote" in refusal
    b.admin("member", "promote", "b")
    assert place.log.primary == bytes.fromhex(told["member"])

    a.admin("member", "set", "a", "--name", "alpha")
    assert set(listed(b)) == {"alpha", "b"}
    assert "a member b" in b.admin("member", "set", "alpha", "--name", "b", fails=True)

    # a leaves: its HSM wipes, its store is erased. Its key is worth nothing any more.
    before = a.info(bytes(16)).key
    a.admin("cluster", "leave", "--yes")
    assert a.wiped()
    with pytest.raises(NoCluster):
        a.secrets()
    assert "serves no cluster: it is in none" in told_at_once(a)
    refusal = a.lnh("cluster", "leave", "--yes", fails=True)
    assert "no cluster to leave" in refusal
    assert "lnh cluster join" in refusal
    wait_until(lambda: not a.store.cluster, "the store was erased")
    assert set(listed(b)) == {"b"}

    # It joins again under a new id and key.
    again = joined(a, b.invited())
    assert a.info(bytes(16)).key != before
    assert again["member"] != told["member"]
    until_listed(b, lambda seen: seen.get("a", {}).get("state") == "read-write", "both again")

    # Only the last member deletes the cluster.
    assert "other members (a)" in b.admin("cluster", "delete", "--yes", fails=True)
    b.admin("member", "remove", "a", "--yes")
    wait_until(a.wiped, "the removed member's HSM wiped it")
    assert "removed" in a.cluster().expelled
    assert "was removed from its cluster" in told_at_once(a)
    assert "Erase" in a.lnh("cluster", "leave", fails=True)
    so_password = place.environment.pop("LNH_SO_PASSWORD_FILE")
    a.lnh("cluster", "leave", "--so-password-file", so_password, "--yes")
    assert a.cluster().expelled == ""
    b.admin("cluster", "delete", "--yes")
    assert b.wiped()


def test_members_one_minor_version_apart_are_one_cluster_and_further_ones_are_not(place: Place) -> None:
    major, minor, _ = lnh_common.VERSION.split(".")
    one_on, two_on = (f"{major}.{int(minor) + steps}.0" for steps in (1, 2))
    a, b = place.first(), place.appliance("b", one_on)
    b.prepared()
    invitation = a.invited()
    b.kill("membership")
    b.start("membership", two_on)
    refusal = b.lnh("cluster", "join", "--invitation", str(invitation), fails=True)
    assert f"version {lnh_common.VERSION} and version {two_on} do not run together" in refusal
    assert [each.name for each in place.log.members] == ["a"]

    # With the version one step on it joins, by the invitation that was not used up.
    b.kill("membership")
    b.start("membership", one_on)
    joined(b, invitation)
    assert b.secrets().smk == a.secrets().smk
    until_listed(
        a,
        lambda seen: (
            {name: (each["state"], each["product"]) for name, each in seen.items()}
            == {"a": ("read-write", lnh_common.VERSION), "b": ("read-write", one_on)}
        ),
        "both, each with its version",
    )


def test_who_may_what_on_the_member_port(place: Place) -> None:
    a = place.first()
    a.invited()
    key = curve.KeyPair.load(a.directory.member_keys).public
    address = f"tcp://127.0.0.1:{a.settings.membership_port}"
    with Caller(address, server_key=key) as stranger:
        said = stranger.ask(membership.PEER_HELLO, membership.Hello(cluster=b"", member=b"", product="0.1.0"))
        assert said.cluster == a.store.cluster
        assert not said.listed
        with pytest.raises(PermissionDenied):
            stranger.ask(membership.PEER_HEALTH, Empty())
        word = membership.Dismissed(cluster=a.store.cluster, member=a.store.member, left=True, reason="", proof=b"")
        with pytest.raises(PermissionDenied):
            stranger.ask(membership.PEER_DISMISSED, word)
        unknown = membership.RequestToJoin(invitation=bytes(32), request=b"nonsense")
        with pytest.raises(LnhError, match="no such invitation"):
            stranger.ask(membership.PEER_JOIN, unknown)
    with Caller(address, server_key=key, keys=curve.KeyPair.load(a.directory.member_keys)) as member:
        health = member.ask(membership.PEER_HEALTH, Empty())
        assert (health.member, health.state) == (a.store.member, "read-write")
        with pytest.raises(PermissionDenied, match="dismissed"):
            member.ask(membership.PEER_DISMISSED, word)
    with Caller(address, server_key=curve.KeyPair.generate().public, reach=1.0) as mistaken, pytest.raises(Unreachable):
        mistaken.ask(membership.PEER_HELLO, membership.Hello(cluster=b"", member=b"", product=""), timeout=2)
    assert a.secrets()


def test_refusals_name_the_condition_and_another_domain_burns(place: Place) -> None:
    a, b = place.first(), place.appliance("b")
    invitation = a.invited()
    assert "not initialised" in b.lnh("cluster", "join", "--invitation", str(invitation), fails=True)
    b.prepared("another domain")
    assert "cloning domain" in b.lnh("cluster", "join", "--invitation", str(invitation), fails=True)
    assert "burnt" in b.lnh("cluster", "join", "--invitation", str(invitation), fails=True)
    assert [each.id for each in place.log.members] == [a.store.member]
    assert b.cluster().phase == ""
    wrong = str(place.secret("wrong", "wrong password"))
    assert "password" in a.admin("member", "invite", "--po-password-file", wrong, fails=True), "the PO approves too"
    (place.root / "nonsense").write_text("hello")
    assert "not an invitation" in b.lnh("cluster", "join", "--invitation", str(place.root / "nonsense"), fails=True)


@pytest.mark.parametrize("victim", ["joiner", "inviter"])
def test_a_core_killed_while_a_member_joins_and_the_command_run_again(place: Place, victim: str) -> None:
    """Killed at whatever it is doing when the new member appears in the list; nothing half done remains."""
    a, b = place.first(), place.appliance("b")
    b.prepared()
    invitation = a.invited()
    killed = b if victim == "joiner" else a
    seen = threading.Event()
    listing = a.store._carry_out

    def watched(name: str, message: Any) -> Any:
        done = listing(name, message)
        if name == store.MEMBER_SET.name:
            seen.set()
        return done

    a.store._carry_out = watched  # type: ignore[method-assign]
    words = [str(BIN / "lnh"), "cluster", "join", "--invitation", str(invitation)]
    environment = {**os.environ, **place.environment, "LNH_MEMBER_DIR": str(b.directory.root)}
    running = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert seen.wait(60)
    killed.kill("hsm")
    running.kill()
    running.wait(30)
    killed.start("hsm")
    killed.activate()
    if not b.cluster().created:
        joined(b, invitation)
    assert b.secrets().smk == a.secrets().smk
    assert sorted(each.name for each in place.log.members) == ["a", "b"]
    assert b.store.member in {each.id for each in place.log.members}


def test_a_joiner_that_waits_says_for_whom(place: Place) -> None:
    a, b = place.first(), place.appliance("b")
    b.prepared()
    place.log.in_step = False
    a.kill("membership")
    a.start("membership")
    refusal = b.lnh("cluster", "join", "--invitation", str(a.invited()), "--timeout", "3", fails=True)
    assert "joined prod, but read-only after 3 s" in refusal
    assert "lnh member delete" in refusal
    a.kill("membership")

    def waits() -> bool:
        return ask(b.directory.hsm_console, console.CLUSTER_PROGRESS).waiting_for == ("a",)

    wait_until(waits, "it waits for a")
    place.log.in_step = True
    assert ask(b.directory.hsm_console, console.CLUSTER_PROGRESS).state == "read-write"


def test_an_expelled_member_that_was_away_stops_and_wipes_when_it_hears_of_it(place: Place) -> None:
    a, b = place.first(), place.appliance("b")
    b.prepared()
    joined(b, a.invited())
    b.kill("membership")
    until_listed(a, lambda seen: seen["b"]["state"] == "unreachable", "b is gone")
    assert "does not answer" in a.admin("member", "remove", "b", "--yes", fails=True)
    assert "no terminal to ask" in a.admin("member", "delete", "b", fails=True)
    a.admin("member", "delete", "b", "--yes")
    assert b.secrets(), "nobody has told it"
    b.start("membership")
    wait_until(b.wiped, "it heard, and wiped", within=30)
    assert "removed this member" in b.cluster().expelled
    assert b.store.cluster, "what it stored is kept until somebody has looked"
    for port in (a.settings.membership_port, a.settings.peer_port, b.settings.membership_port):
        wait_until(lambda to=port: not talk_to(to), f"nobody knocks at {port} any more")  # type: ignore[misc]


def test_with_real_stores_members_join_are_promoted_leave_and_join_again(whole: Place) -> None:
    a, b = whole.first(), whole.appliance("b")
    b.prepared()
    a.admin("user", "role", "create", "clerk", "--permission", "groups", "--permission", "view")
    a.admin("user", "add", "olga", "--role", "clerk", "--new-password-file", str(whole.files["admin"]))
    told = joined(b, a.invited())
    assert told["state"] == "read-write"
    assert b.secrets().smk == a.secrets().smk
    until_listed(
        b,
        lambda seen: {name: each["state"] for name, each in seen.items()} == dict.fromkeys("ab", "read-write"),
        "both",
    )
    assert "olga" in b.admin("user", "list")
    b.admin("group", "create", "east", "--user", "olga")
    assert "permission 'users'" in b.admin("user", "list", "--user", "olga", fails=True)
    b.admin("member", "promote", "b")
    until_listed(a, lambda seen: seen["b"]["role"] == "primary" and seen["a"]["state"] == "read-write", "b is primary")
    a.admin("cluster", "leave", "--yes")
    assert a.wiped()
    assert set(listed(b)) == {"b"}
    again = joined(a, b.invited())
    assert again["state"] == "read-write"
    until_listed(b, lambda seen: seen.get("a", {}).get("state") == "read-write", "a is back")
    b.admin("member", "remove", "a", "--yes")
    wait_until(a.wiped, "the removed member's HSM wiped it", within=30)
    b.admin("cluster", "delete", "--yes")
    assert b.wiped()
