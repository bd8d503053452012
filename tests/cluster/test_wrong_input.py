"""The command line against a running member: every option with wrong input, bulk work that fails, every `--json`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.testing
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

import failed
import lnh
from leaves import leaves
from lnh import admin
from lnh.console import Console
from lnh_cli.main import tree
from lnh_cli.support.command import Output
from lnh_cli.support.options import (
    AdminOptions,
    ClusterOptions,
    ConsoleOptions,
    KeyringOptions,
    ObjectOptions,
    PoOptions,
)
from lnh_cli.support.terminal import REFUSED
from lnh_common import limits
from models.command_rows import NOT_BOTH_WAYS, ROWS, SEEN, SHOWN_AGAIN, Row
from processes import Processes, RunningMember, begin_with
from shown import Comparison, Shown
from waits import wait_until

PASSWORDS = {
    role: f"password of {role}" for role in ("ADMIN", "PO", "SO", "KRSO", "KRCO", "CO", "NEW", "DOMAIN", "SMK")
}
KEYRINGS = ("payments", "many")
ACTIVATION = b"activation secret"
APP = tree()
TOP: Any = typer.main.get_group(APP)

# Commands that run for long, start members, or end the one that is asked.
LEFT_OUT = {"demo", "up", "down", "top", "bench", "bootstrap", "drill"}

WRONG = ("", "-7", "no such", "0xzz", "9" * 25, "\x1b[31mred\u202e", "x" * 5000)
NO_TEXT = "bytes"  # a file

# A value that fits, by the name of what is asked for; anything else takes "one".
FITTING = {
    "settings": "label=new",
    "changes": "minimum_rsa_bits=2048",
    "signature": "data",
    "file": "data",
    "invitation": "data",
    "output": "data",
    "permission": "view",
    "shares": "2-of-3",
    "archive": "20260101T000000Z-1.lnha",
    "to": ".",
    "role": "krco",
    "keyring": "payments",
    "cluster_id": "00" * 16,
    "which": "0a",
    "subject": "CN=one",
    "profile": "client",
    "roots": "data",
}

# What a decoder, Python or an enum says of itself.
NOT_OUR_WORDS = re.compile(
    r"this is a bug|Traceback|Expected `|- at `|msgspec|<[A-Z]\w*\.\w+|invalid literal|has no attribute|object is not"
    r"|\b[A-Z]\w*Error\b|Input should|codec can't|NoneType"
)


# What a failed login leaves is forgotten within seconds here, not within an hour.
FORGETS_SOON = """
limits.LOCK_SECONDS, limits.FORGIVEN_AFTER, limits.ISSUED_AT_TOLERANCE, limits.SWEEP_SECONDS = 3, 1, 10, 5.0
"""
MADE_UP = ("nobody", "no one else")


class Place:
    """A member with a cluster, and a machine that is registered with it; `run` is `lnh` there, in this process."""

    def __init__(self, root: Path, processes: Processes, member: RunningMember) -> None:
        self.root = root
        self.processes = processes
        self.member = member
        self.client = lnh.Configuration(root / "client")
        self.left: set[tuple[str, bytes, bytes]] = set()  # records of failures at names that nobody has
        self._runner = CliRunner()
        for name, password in PASSWORDS.items():
            (root / name).write_text(password + "\n")
        (root / "data").write_bytes(b"data")
        (root / NO_TEXT).write_bytes(b"\x00\x82\xff" * 40)
        key = ec.generate_private_key(ec.SECP256R1())
        (root / "in.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def attempts(self) -> set[tuple[str, bytes, bytes]]:
        """Name the records that the cluster has of names that were tried, of their locks and attempts."""
        path = self.member.directory.root / "data" / "store" / "store.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as disk:
            rows = disk.execute("SELECT tbl, scope, id FROM items").fetchall()
        return {row for row in rows if row[0].endswith(("tried", "lock", "attempt"))}

    def run(self, *words: str, **variables: str | None) -> Any:
        """A command, as a user of the machine types it; with more of an environment, or less (None)."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LNH_")}
        environment |= {f"LNH_{name}_PASSWORD_FILE": str(self.root / name) for name in PASSWORDS}
        environment |= {"LNH_CONFIG": str(self.client.directory), "XDG_RUNTIME_DIR": str(self.root)}
        environment |= {"LNH_MEMBER_DIR": str(self.member.directory.root)}
        return self._runner.invoke(APP, list(words), env=environment | variables)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with failed.directory() as root, Processes() as processes, pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield build(processes, root)


def build(processes: Processes, root: Path) -> Place:
    member = RunningMember(processes, root / "A", workers=1)
    (root / "soon").mkdir()
    begin_with(FORGETS_SOON, root / "soon")
    member.start(PYTHONPATH=str(root / "soon"))
    place = Place(root, processes, member)
    with Console(root / "A") as console:
        console.init_appliance("admin", PASSWORDS["ADMIN"])
        console.init_hsm("A", PASSWORDS["SO"], ACTIVATION, PASSWORDS["DOMAIN"])
        console.install_package("cluster", PASSWORDS["SO"])
        created = console.create_cluster("prod", PASSWORDS["SO"], PASSWORDS["PO"])
    address = f"127.0.0.1:{member.settings.base_port}"
    lnh.register(place.client, address, "web", "admin", lambda: PASSWORDS["ADMIN"], wanted=created.fingerprint)
    with lnh.connect("prod", directory=place.client.directory) as cluster:
        with admin.login(cluster.connection, "admin", PASSWORDS["ADMIN"], po_password=PASSWORDS["PO"]) as session:
            for label in KEYRINGS:
                session.create_keyrings(label)
                session.init_krso(label, "the first password")
        for keyring in map(cluster.keyring, KEYRINGS):
            keyring.change_password(lnh.Role.KRSO, "the first password", PASSWORDS["KRSO"])
            with keyring.login(lnh.Role.KRSO, PASSWORDS["KRSO"]) as held:
                held.set_krco(PASSWORDS["KRCO"])
    for words in (("role", "login", "-k", "payments"), ("user", "login", "--po")):  # so that each command is quick
        done = place.run(*words)
        assert done.exit_code == 0, done.output
    for label in ("one", "shown"):  # of which the first is what commands with wrong options are about
        made = place.run("key", "generate", label, "-k", "payments")
        assert made.exit_code == 0, made.output
    before = place.attempts()
    with lnh.connect("prod", directory=place.client.directory) as cluster:
        for name in MADE_UP:
            with pytest.raises(lnh.PasswordIncorrect):
                admin.login(cluster.connection, name, "a guess")
    place.left = place.attempts() - before
    return place


def test_of_made_up_names_nothing_is_left_in_the_store(place: Place) -> None:
    tables = Counter(row[0] for row in place.left)
    assert sorted(tables.values()) == [len(MADE_UP), 2 * len(MADE_UP), 2 * len(MADE_UP)], tables
    wait_until(lambda: not place.left & place.attempts(), "the sweep", within=60, every=0.2)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    yield from ((path, command) for path, command in leaves(TOP) if path[0] not in LEFT_OUT and path[-1] != "serve")


GROUPS = (Output, ConsoleOptions, ClusterOptions, AdminOptions, PoOptions, KeyringOptions, ObjectOptions)
SHARED = {field.name for group in GROUPS for field in dataclasses.fields(group)}


def takes_value(parameter: Any) -> bool:
    return not getattr(parameter, "is_flag", False) and parameter.name not in ("help", "json", "debug")


def is_path(parameter: Any) -> bool:
    declared = getattr(parameter, "type_descriptor", None) or parameter.type  # by the version of typer
    return "path" in str(declared).lower()


def asked(parameter: Any, value: str) -> list[str]:
    if parameter.param_type_name == "argument":
        return [value]
    return [next(word for word in reversed(parameter.opts) if word.startswith("--")) + "=" + value]


def line(command: Any, wrong: Any, value: str) -> list[str]:
    """The words of a command with one wrong value and fitting ones for all else that is needed."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in command.params:
        if parameter is wrong:
            given = value
        elif parameter.required or (parameter.name == "keyring" and parameter.param_type_name == "option"):
            given = FITTING.get(parameter.name, "one")
        else:
            continue
        (arguments if parameter.param_type_name == "argument" else options).extend(asked(parameter, given))
    return [*options, "--", *arguments]


def cases() -> Iterator[Any]:
    seen = set()
    for path, command in commands():
        for parameter in command.params:
            name = parameter.name
            if takes_value(parameter) and not (name in SHARED and name in seen):
                seen.add(name)
                yield pytest.param(path, command, parameter, id=f"{' '.join(path)} {name}")


@pytest.mark.parametrize(("path", "command", "parameter"), list(cases()))
def test_a_wrong_value_of_any_option_is_answered_in_the_products_words(
    place: Place, path: tuple[str, ...], command: Any, parameter: Any
) -> None:
    # Three of the wrong values for each: which ones changes from option to option.
    begin = sum(map(ord, "".join(path) + parameter.name)) % len(WRONG)
    for value in (*(*WRONG, *WRONG)[begin : begin + 3], *([NO_TEXT] if is_path(parameter) else [])):
        done = place.run(*path, *line(command, parameter, value))
        said = f"{path} {parameter.name}={value[:30]!r}: {done.output[:600]}"
        assert done.exit_code in (0, 1, 2, 3), said
        assert done.exception is None or isinstance(done.exception, SystemExit), said
        assert not NOT_OUR_WORDS.search(done.output), said
        assert "\x1b[31m" not in done.output, said


# Wrong in any name, number, address, file and mechanism; and what may be called anything.
NEVER_RIGHT = "\x1b[31mred\u202e" * 1000
OF_OBJECTS = {"key", "certificate", "data", "sign", "verify", "encrypt", "decrypt", "random"}
ANYTHING = {"key", "wrapped", "new", "label", "partition", "member_dir", "keyring", "fingerprint", "certificate", "ca", "keep", "data", "application"}  # fmt: skip


@pytest.mark.parametrize(("path", "command", "parameter"), list(cases()))
def test_what_is_wrong_in_the_line_is_said_before_a_password_is_asked_for(
    place: Place, path: tuple[str, ...], command: Any, parameter: Any
) -> None:
    nothing = {f"LNH_{name}_PASSWORD_FILE": None for name in PASSWORDS}
    if path[0] in OF_OBJECTS and parameter.name in ANYTHING:
        return
    words = line(command, parameter, NEVER_RIGHT)
    done = place.run(*path, *words, **nothing, XDG_RUNTIME_DIR=str(place.root / "A"))
    assert not re.match("refused: no .*(password|secret|domain)", done.output), done.output[:600]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("modulus_bits=abc", "modulus_bits is a whole number, not 'abc'"),
        ("value_len=0xzz", "value_len is a whole number, not '0xzz'"),
        ("extractable=maybe", "extractable is true or false, not 'maybe'"),
        ("id=xyz", "'xyz' is not hexadecimal"),
    ],
)
def test_an_attribute_that_does_not_fit_its_kind_is_named(place: Place, setting: str, said: str) -> None:
    done = place.run("key", "generate", "a", "-k", "payments", "--set", setting)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_mechanism_that_is_not_there_is_answered_with_the_few_that_are_like_it(place: Place) -> None:
    done = place.run("sign", "one", "data", "-k", "payments", "-m", "ECDSA_SHA255")
    assert done.exit_code == 2
    first, second = done.stderr.splitlines()
    assert first == "refused: no mechanism 'ECDSA_SHA255'"
    assert "ECDSA_SHA256" in second
    assert second.count(",") < 7
    done = place.run("sign", "one", "data", "-k", "payments", "-m", "AES_GCM")
    assert done.stderr.splitlines()[0] == "refused: AES_GCM does not sign"


def test_bulk_work_that_fails_midway_says_what_it_made(place: Place) -> None:
    words = ("key", "generate", "bulk", "-k", "many", "-t", "AES", "--total", "300", "--json")
    done = place.run(*words)
    assert done.exit_code == 1
    made = json.loads(done.stdout)
    assert [each["label"] for each in made] == [f"bulk{number}" for number in range(1, 201)]
    said = done.stderr.splitlines()
    assert said[0] == "only these 200 objects were made"
    assert "a keyring holds at most 256" in said[1]
    assert "lnh cluster policy objects_per_keyring" in said[2]


def test_the_last_admin_stays_and_the_advice_is_to_add_another(place: Place) -> None:
    done = place.run("user", "delete", "admin", "--yes")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "refused: 'admin' is the last admin",
        "try: add another one first: lnh user add NAME --role admin",
    ]


def test_the_po_changes_its_password_which_ends_its_sessions(place: Place) -> None:
    given = ("--new-password-file", str(place.root / "NEW"), "--timeout", "60")
    anew = place.run("cluster", "password", *given, "--json")
    assert (anew.exit_code, json.loads(anew.stdout)) == (0, {"done": True, "role": "po"}), anew.output
    refused = place.run("cluster", "policy", "minimum_rsa_bits=2048", "--po-password-file", str(place.root / "PO"))
    assert (refused.exit_code, "wrong name or password" in refused.stderr) == (REFUSED, True), refused.output
    back = (
        "--po-password-file",
        str(place.root / "NEW"),
        "--new-password-file",
        str(place.root / "PO"),
        "--timeout",
        "60",
    )
    for words in (("cluster", "password", *back), ("user", "login", "--po")):
        done = place.run(*words)
        assert done.exit_code == 0, done.output


def test_a_second_admin_approves_what_the_first_one_asked_for(place: Place) -> None:
    def run(*words: str, ends: int = 0) -> Any:
        done = place.run(*words)
        assert done.exit_code == ends, done.output
        return done

    def asked(*words: str) -> str:
        """The id of what a command waits for, from the words that say what to do."""
        said, advice = run(*words, ends=REFUSED).stderr.splitlines()
        assert "waits for a second person (policy dual_control); nothing was done" in said
        found = re.fullmatch(r"try: ask another admin: lnh approval approve ([0-9a-f]{32}); then run .* again", advice)
        assert found is not None, advice
        return found[1]

    second = ("-u", "second", "--password-file", str(place.root / "NEW"))
    run("user", "add", "second", "--role", "admin", "--new-password-file", str(place.root / "NEW"))
    run("keyring", "create", "doomed")
    run("cluster", "policy", "dual_control=keyring.delete,user.delete")
    delete = ("keyring", "delete", "doomed", "--yes")
    waits = asked(*delete)
    assert "nobody approves what he asked for himself" in run("approval", "approve", waits, ends=REFUSED).stderr
    (listed,) = json.loads(run("approval", "list", "--json").stdout)
    assert (listed["id"], listed["about"], listed["requesters"]) == (waits, "keyring doomed", ["admin"])
    assert waits in run("approval", "list").stdout
    denied = json.loads(run("approval", "deny", waits[:6], *second, "--json").stdout)
    assert (denied["decision"], denied["deciders"]) == ("denied", ["second"])
    assert "was denied by second" in run(*delete, ends=REFUSED).stderr
    assert "now runs the same command again, once" in run("approval", "approve", waits[:6], *second).stdout
    run(*delete)
    policy = ("cluster", "policy", "dual_control=")
    approved = json.loads(run("approval", "approve", asked(*policy), *second, "--json").stdout)
    assert (approved["operation"], approved["decision"]) == ("cluster.policy", "approved")
    run(*policy)
    run("user", "delete", "second", "--yes")


@pytest.mark.parametrize(
    ("words", "said", "advice"),
    [
        ("role init -k nosuch", "no keyring 'nosuch'", "lnh keyring list"),
        ("role login -k nosuch", "no keyring 'nosuch'", "lnh keyring list"),
        ("user add admin --role operator", "there is a user 'admin'", "choose another name"),
        ("user add new --role nosuch", "no role 'nosuch'; there are: admin, operator, monitor", "lnh user role list"),
        ("user role create new -p nosuch", "no permission 'nosuch'", "view, users, clients"),
        ("partition create p", "the cluster package has disabled", "re-imaging"),
        ("cluster create again", "one cluster per appliance", "nothing to do"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_new_password_is_asked_for(
    place: Place, words: str, said: str, advice: str
) -> None:
    done = place.run(*words.split(), LNH_NEW_PASSWORD_FILE=None, LNH_SO_PASSWORD_FILE=None)
    first, second = done.stderr.splitlines()
    assert said in first
    assert advice in second


def test_a_krso_that_there_is_changes_its_own_password(place: Place) -> None:
    done = place.run("role", "init", "-k", "payments")
    assert done.exit_code == REFUSED
    assert "lnh role password --role krso --keyring payments" in done.stderr.splitlines()[1]


def test_a_size_that_no_policy_allows_is_not_blamed_on_one(place: Place) -> None:
    sizes = ("--type", "RSA", "--bits", "2048", "--set", "wrap=true", "--set", "unwrap=true")
    done = place.run("key", "generate", "w", "-k", "payments", *sizes)
    assert done.exit_code == REFUSED
    assert "3072 bits or more: no policy allows fewer" in done.stderr.splitlines()[1]


def test_without_a_terminal_a_question_says_how_to_answer_it(place: Place) -> None:
    done = place.run("keyring", "delete", "payments")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "refused: there is no terminal to ask on: Delete keyring 'payments' and every object in it?",
        "try: --yes answers yes",
    ]


def test_a_sealed_member_is_told_of_at_once_and_serves_when_it_is_activated(place: Place) -> None:
    everybody = (("keyring", "list"), ("key", "list", "-k", "payments"), ("user", "list"), ("keyring", "show", "many"))
    with Console(place.member.directory.root) as console:
        console.deactivate(ACTIVATION)
        try:
            for words in everybody:
                began = time.monotonic()
                done = place.run(*words)
                assert time.monotonic() - began < limits.DEADLINE / 2
                assert (done.exit_code, "this member is sealed" in done.output) == (REFUSED, True), done.output
                assert "lnh hsm activate" in done.output
        finally:
            console.activate(ACTIVATION)
    began = time.monotonic()
    for words in everybody:  # the first while workers start, which is waited for
        done = place.run(*words)
        assert done.exit_code == 0, done.output
    assert time.monotonic() - began < limits.DEADLINE


def with_json() -> set[tuple[str, ...]]:
    return {path for path, each in leaves(TOP) if any(parameter.name == "json" for parameter in each.params)}


def command_of(row: Row) -> tuple[str, ...]:
    words = tuple(row.words.split())
    return next(path for path, _ in leaves(TOP) if words[: len(path)] == path)


def test_every_command_with_json_is_read_both_ways_or_says_why_not() -> None:
    both = {command_of(row) for row in ROWS}
    assert both & set(NOT_BOTH_WAYS) == set()
    assert both | set(NOT_BOTH_WAYS) == with_json()


def test_every_json_holds_what_its_table_shows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    RunningMember(place.processes, place.root / "B", name="B", workers=1).start()
    (place.root / "ACTIVATION").write_text("activation secret\n")
    tables = [run_row(place, row, "once", monkeypatch) for row in ROWS]
    faults, read = [], {}
    for row, table in zip(ROWS, tables, strict=True):
        other = run_row(place, row, "twice", monkeypatch, "--json")
        told = read[row.words] = json.loads(other.done.stdout.replace("twice", "once"))
        names = frozenset(word for word in table.words[2:] if not word.startswith("-") and "/" not in word)
        comparison = Comparison(table.shown, told, names, row.anew, row.moves, row.computed)
        found = [*comparison.faults()]
        if other.done.exit_code != table.done.exit_code:
            found.append(f"it ends with {table.done.exit_code}, and as JSON with {other.done.exit_code}")
        faults += [f"lnh {row.words}: {fault}" for fault in found]
    for words, (again, name) in SHOWN_AGAIN.items():
        shown = read[again]
        (listed,) = [each for each in read[words] if each[name] == shown[name]]
        common = listed.keys() & shown.keys() - SEEN
        if {each: listed[each] for each in common} != {each: shown[each] for each in common}:
            faults.append(f"lnh {words}: {listed}, and lnh {again}: {shown}")
    assert faults == []


def test_the_doctor_names_the_keyrings_whose_keys_are_not_kept_to_one_use(place: Place) -> None:
    def named() -> dict[str, str]:
        found = json.loads(place.run("doctor", "--json").stdout)["findings"]
        return {each["where"]: each["do"] for each in found if each["check"] == "keys-not-separated"}

    assert named() == {}
    place.run("cluster", "policy", "key_uses=compatible")
    try:
        found = named()
        assert set(KEYRINGS) <= set(found)
        (command,) = re.findall("^lnh (.*), as its KRSO", found["many"])
        done = place.run(*command.split())
        assert done.exit_code == 0, done.output
        found = named()
        assert "payments" in found
        assert "many" not in found
    finally:
        place.run("cluster", "policy", "key_uses=separated")
    assert named() == {}


class Filling(dict[str, str]):
    """What the words of a row are filled with."""

    def __init__(self, place: Place, n: str) -> None:
        super().__init__(n=n, root=str(place.root), address=place.client.registration().member)
        self._place = place

    def __missing__(self, name: str) -> str:
        if name == "identity":
            shown = self._place.run("hsm", "show", "--member-dir", str(self._place.root / "A"), "--json")
            return str(json.loads(shown.stdout)["identity"])
        if name == "fingerprint":
            return str(json.loads(self._place.run("cluster", "show", "--json").stdout)["fingerprint"])
        assert name == "archive"
        return str(json.loads(self._place.run("backup", "list", "--json").stdout)[0]["name"])


def are_settled(place: Place) -> bool:
    return states(place) == {"read-write"} and "hsm workers of" not in place.run("doctor").output


def states(place: Place) -> set[str]:
    return {each["state"] for each in json.loads(place.run("member", "list", "--json").stdout)}


@dataclasses.dataclass
class Run:
    words: list[str]
    done: Any
    shown: Shown


def run_row(place: Place, row: Row, n: str, patch: pytest.MonkeyPatch, *more: str) -> Run:
    variables = {"XDG_RUNTIME_DIR": str(place.root / f"runtime-{n}")} if row.apart or row.own else {}
    if row.own:
        variables["LNH_CONFIG"] = str(place.root / f"config-{n}")
    for directory in ("runtime", "to"):
        (place.root / f"{directory}-{n}").mkdir(exist_ok=True, mode=0o700)
    words, shown = row.words.format_map(Filling(place, n)).split(), Shown()
    with patch.context() as within:
        shown.listen(within)
        done = place.run(*words, *more, **variables)
    assert done.exit_code == 0 or words == ["doctor"], f"{row.words}: {done.output}"
    if row.settles:
        wait_until(lambda: are_settled(place), "members in step whose workers serve", every=0.1)
    if not (shown.tables or shown.records or shown.lines):
        shown.lines = done.stdout.splitlines()
    return Run(words, done, shown)


def test_a_role_that_is_locked_is_shown_so_until_it_is_unlocked(place: Place) -> None:
    def locked() -> tuple[list[str], list[dict[str, str]]]:
        listed = json.loads(place.run("role", "list", "-k", "many", "--json").stdout)
        shown = json.loads(place.run("keyring", "show", "many", "--json").stdout)
        return next(each["locked"] for each in listed if each["role"] == "krco"), shown["locked"]

    assert place.run("cluster", "policy", "lock_after=1").exit_code == 0
    try:
        assert locked() == ([], [])
        assert place.run("role", "login", "-k", "many", "--role", "krco", "--password-file", "data").exit_code == 1
        assert locked() == (
            ["everybody until lnh role unlock"],
            [{"role": "krco", "client": "", "until": "lnh role unlock"}],
        )
        assert "everybody until lnh role unlock" in place.run("role", "list", "-k", "many").stdout
        assert place.run("role", "unlock", "-k", "many").exit_code == 0
        assert locked() == ([], [])
    finally:
        assert place.run("cluster", "policy", "lock_after=0").exit_code == 0
