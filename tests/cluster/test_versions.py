"""A member and a cluster of one version go on under the next, and go back, with real processes.

What version 0.1 left is started as it is. The next version is this code that takes itself for it (LNH_TEST_VERSION), and
`make test-versions` has a cluster of the version before upgraded by its own processes out of this repository's history.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import failed
import installed
import lnh
import lnh_common
from commands import ForkedSteps
from lnh_cli.demo import local
from lnh_cli.demo.local import Member, Order, Place, StepFailed
from lnh_common.versions import minor
from members import Members, Shared, end_all, private_key
from waits import wait_until

pytestmark = pytest.mark.several

DATA = Path(__file__).parents[1] / "data"
BEFORE = "0.1"
THIS = lnh_common.VERSION
NEXT = "0.3.0"
AGED = "0.1.9"  # of this code
MISSING = installed.missing(BEFORE)
SIGNING = ("ec", "rsa", "edwards", "ml-dsa")
PAUSE = 0.1  # seconds between two acts of a client: the processor is for the members that start
NOT_NOW = (lnh.MemberReadOnly, lnh.OutcomeUnknown, lnh.DeadlineExceeded)


def runbook() -> list[list[str]]:
    """The commands of the page that says how a cluster is upgraded."""
    page = (DATA.parents[1] / "docs" / "operations.md").read_text().partition("## Upgrading")[2].partition("\n## ")[0]
    commands = [shlex.split(each) for each in re.findall(r"^ {7}(lnh .*)$", page, re.MULTILINE)]
    assert ["lnh", "cluster", "upgrade"] in commands
    for words in re.findall(r"`(lnh [a-z -]+)`", page):
        assert shlex.split(words)[1:3] in (["member", "list"], ["member", "promote"], ["cluster", "upgrade"])
    return commands


# --- what a version before left


@pytest.fixture
def before() -> Iterator[ForkedSteps]:
    """The directory of a member that a version before made, with its client, at an address that is free here."""
    with failed.directory() as path, ExitStack() as ends:
        root = path / "D"
        shutil.copytree(DATA / BEFORE / "member", root)
        for each in root.rglob("*"):
            each.chmod(0o700 if each.is_dir() else 0o600)
        place = Place(root)
        ends.callback(end_all, place)
        port = str(local.free_ports())
        for file in (place.first.directory / "member.toml", place.first.client / "client.toml"):
            text = file.read_text().replace("ROOT", str(root)).replace("7100", port)
            file.write_text(text)
        (place.first.client / "runtime").mkdir(mode=0o700)
        yield ForkedSteps(place, quiet=True)


def test_what_a_version_before_left_goes_on_with_its_keys_and_not_back_once_raised(
    before: ForkedSteps, tmp_path: Path
) -> None:
    root, where = before.place.root, ("-k", "payments")
    text = root / "made" / "text"
    before.start()
    shown = json.loads(before.run("lnh", "key", "list", *where, "--json"))
    assert {each["label"] for each in shown} == {*SIGNING, "aes"}
    assert len(shown) == 2 * len(SIGNING) + 1
    uses: list[tuple[str | Path, ...]] = [
        ("lnh", "decrypt", *where, "aes", root / "made" / "aes.enc", "--output", tmp_path / "aes")
    ]
    for label in SIGNING:
        uses.append(("lnh", "verify", *where, label, text, "--signature", root / "made" / f"{label}.sig"))
        uses.append(("lnh", "sign", *where, label, text, "--output", tmp_path / label))
    before.together([Order(words) for words in uses])
    assert (tmp_path / "aes").read_bytes() == text.read_bytes()
    assert {each["name"] for each in json.loads(before.run("lnh", "user", "list", "--json"))} == {"admin", "olga"}
    assert json.loads(before.run("lnh", "cluster", "upgrade", "--check", "--json"))["version"] == BEFORE
    with pytest.raises(StepFailed, match=r"once the cluster's version is 0\.2; it is 0\.1"):
        before.run("lnh", "group", "create", "east")
    for words in runbook():
        before.run(*words, *(["--yes"] if words[-1] == "upgrade" else []))
    before.run("lnh", "group", "create", "east")
    before.place.first.stop()
    before.environment["LNH_TEST_VERSION"] = AGED
    before.start()
    with pytest.raises(StepFailed, match=f"the cluster's version is 0.2, and this member runs {AGED}"):
        before.run("lnh", "key", "list", *where)
    before.run("lnh", "audit", "verify", "--member-dir", before.place.first.directory)


# --- the next version


class Clients:
    """Clients that sign and make keys all the time, through whichever members serve; what was acknowledged is known."""

    def __init__(self, members: Members) -> None:
        self.made: list[str] = []
        self.signed = 0
        self._over = threading.Event()
        self._members = members
        self.errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(member, number)) for number, member in enumerate(members.all)
        ]

    def _run(self, member: Member, number: int) -> None:
        password = self._members.place.secret("krco").read_text().strip()
        try:
            with lnh.connect("demo", directory=member.client) as cluster:
                session = cluster.keyring("payments").login(lnh.Role.KRCO, password)
                key = private_key(session, "kept")
                while not self._over.wait(PAUSE):
                    key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
                    self.signed += 1
                    label = f"made-{number}-{self.signed}"
                    try:
                        session.generate_key(lnh.KeyType.AES, 256, label=label)
                    except NOT_NOW:
                        continue
                    self.made.append(label)
        except Exception as error:  # looked at by the test
            self.errors.append(error)

    def more(self) -> None:
        """Wait until keys were used and made since now."""
        made, signed = len(self.made), self.signed
        wait_until(lambda: self.errors or (len(self.made) > made and self.signed > signed + 3), "clients that work")
        assert self.errors == []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60)
        assert self.errors == []


def put(members: Members, member: Member, version: str) -> None:
    """Start a member anew, with this version."""
    member.stop()
    members.steps.environment["LNH_TEST_VERSION"] = version
    members.steps.start(member)


def products(members: Members, through: Member) -> list[str]:
    shown = json.loads(members.steps.run("lnh", "member", "list", "--json", through=through))
    return [each["product"] for each in sorted(shown, key=lambda each: str(each["name"]))]


def labels(members: Members, through: Member) -> set[str]:
    shown = members.steps.run("lnh", "key", "list", "-k", "payments", "--json", "--current", through=through)
    return {each["label"] for each in json.loads(shown)}


def upgrade_in_turn(members: Members) -> None:
    a, b, c = members.all
    steps, clients = members.steps, Clients(members)
    with members.sessions(b, c) as (session,):
        session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="kept")
    with clients.at_work():
        for member in (c, b):
            put(members, member, NEXT)
            members.all_read_write()
        clients.more()
        assert products(members, c) == [THIS, NEXT, NEXT]
        steps.run("lnh", "member", "promote", b.name, "--timeout", "60", through=b)
        put(members, a, NEXT)
        members.all_read_write()
        assert products(members, a) == [NEXT] * 3
        put(members, a, THIS)  # it goes back, and nothing is lost by it
        members.all_read_write()
        clients.more()
    with pytest.raises(StepFailed, match=f"becomes 0.3 once every member .* waits for {a.name}"):
        steps.run("lnh", "cluster", "upgrade", "--yes", through=b)
    for member in members.all:
        assert labels(members, member) >= set(clients.made)


def test_a_cluster_is_upgraded_in_turn_while_clients_work_and_a_member_goes_back(
    members: Members, shared: Shared
) -> None:
    try:
        upgrade_in_turn(members)
    finally:
        members.steps.environment.pop("LNH_TEST_VERSION", None)
        shared.close()  # its members are of a version that no other test's are


# --- the version before, out of this repository's history


@dataclass
class Both:
    """A cluster that the version before set up, and the programs of both versions."""

    place: Place
    programs: Path
    steps: ForkedSteps  # of this version
    upgraded: set[str] = field(default_factory=set)  # names of the members that run this version

    def old(self, *words: str | Path, through: Member | None = None) -> str:
        """What a command of the version before says."""
        environment = self.steps.environment | (through.variables() if through is not None else {})
        command = [str(self.programs / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_old(self, member: Member) -> None:
        """Start a member with the version before; it need not become ready."""
        command = [str(self.programs / "lnh-member"), "--member-dir", str(member.directory)]
        process = subprocess.Popen(
            command, env=self.steps.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        member.pid_file.write_text(f"{process.pid}\n")

    def upgrade(self, member: Member) -> None:
        member.stop()
        self.steps.start(member)
        self.upgraded.add(member.name)

    def back(self, member: Member) -> None:
        member.stop()
        self.start_old(member)
        self.old("lnh-member", "--member-dir", member.directory, "--wait-ready")
        self.upgraded.remove(member.name)

    def all_read_write(self) -> None:
        """As a client of each version sees it through each member."""
        for member in self.place.members:
            for say in (self.old, self.steps.run):
                condition = partial(self._are_read_write, say, member)
                wait_until(condition, f"all as read-write, seen by {member.name}", every=0.5)

    def _are_read_write(self, say: Callable[..., str], through: Member) -> bool:
        views = json.loads(say("lnh", "member", "list", "--json", through=through))
        products = {each["name"]: minor(each["product"]) for each in views}
        assert {name for name, product in products.items() if product != BEFORE} <= self.upgraded
        return {each["state"] for each in views} == {"read-write"} and len(views) == len(self.place.members)

    def labels(self, through: Member) -> set[str]:
        """What both versions' clients list through a member, which is the same."""
        listed = [
            {
                each["label"]
                for each in json.loads(say("lnh", "key", "list", "-k", "payments", "--json", through=through))
            }
            for say in (self.old, self.steps.run)
        ]
        assert listed[0] == listed[1]
        return listed[0]


@pytest.fixture
def both() -> Iterator[Both]:
    with failed.directory() as root, ExitStack() as ends:
        programs = installed.install(BEFORE, root / "before")
        place = Place(root / "D")
        steps = ForkedSteps(place, quiet=True)
        steps.environment["LNH_WORKERS"] = "1"
        ends.callback(end_all, place)
        made = Both(place, programs, steps)
        made.old("lnh", "up", "--dir", place.root)
        yield made


@pytest.mark.skipif("LNH_TEST_VERSIONS" not in os.environ, reason="make test-versions runs it: it takes a minute")
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_processes_of_two_versions_are_one_cluster_which_is_upgraded_and_goes_back(both: Both) -> None:
    a, b, c = both.place.members
    text, signature, cipher = (both.place.root / name for name in ("text", "signature", "cipher"))
    text.write_text("what both versions sign\n")
    both.old("lnh", "key", "generate", "-k", "payments", "old", "--type", "EC", "--curve", "P-256")
    both.old("lnh", "key", "generate", "-k", "payments", "old-aes", "--type", "AES", "--bits", "256")
    both.old("lnh", "sign", "-k", "payments", "old", text, "--output", signature)
    both.old("lnh", "encrypt", "-k", "payments", "old-aes", text, "--output", cipher)
    made = {"old", "old-aes"}

    def work(*members: Member) -> None:
        """Clients of both versions make and use keys through these members, and all of it is everywhere."""
        both.all_read_write()
        for member in members:
            for say, version in ((both.old, "old"), (both.steps.run, "new")):
                label = f"{version}-{member.name}-{len(made)}"
                say(
                    "lnh",
                    "key",
                    "generate",
                    "-k",
                    "payments",
                    label,
                    "--type",
                    "EC",
                    "--curve",
                    "P-256",
                    through=member,
                )
                made.add(label)
                say("lnh", "verify", "-k", "payments", "old", text, "--signature", signature, through=member)
        for member in both.place.members:
            assert both.labels(member) == made

    work(a)
    both.upgrade(c)
    work(c, a)
    both.back(c)
    work(c)
    for member in (c, b):
        both.upgrade(member)
    both.steps.run("lnh", "member", "promote", b.name, "--timeout", "60", through=b)
    both.upgrade(a)
    work(a)
    both.back(a)
    work(a)
    both.upgrade(a)
    work()
    both.steps.run("lnh", "cluster", "upgrade", "--yes", "--timeout", "60")
    both.steps.run("lnh", "group", "create", "east")
    both.steps.run("lnh", "decrypt", "-k", "payments", "old-aes", cipher, "--output", text.with_suffix(".again"))
    assert text.with_suffix(".again").read_bytes() == text.read_bytes()

    c.stop()
    both.start_old(c)  # which is too late: it never becomes ready, and harms nothing
    log = c.directory / "log" / "store.log"
    wait_until(lambda: "SealBroken" in log.read_text(), "a store that does not read the cluster's data")
    both.upgrade(c)
    both.steps.wait_for(a, {member.name: "read-write" for member in both.place.members})
    listed = json.loads(both.steps.run("lnh", "key", "list", "-k", "payments", "--json", through=c))
    assert {each["label"] for each in listed} == made
