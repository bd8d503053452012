"""The command line with wrong input, against a running member: every option of every command, and bulk work that fails."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.testing
from typer.testing import CliRunner

import failed
import lnh
from lnh import admin
from lnh.cli.command import Output
from lnh.cli.main import tree
from lnh.cli.options import AdminOptions, ClusterOptions, ConsoleOptions, KeyringOptions, ObjectOptions, PoOptions
from lnh.cli.terminal import REFUSED
from lnh.console import Console
from lnh_common import limits
from processes import Processes, RunningMember

PASSWORDS = {role: f"password of {role}" for role in ("ADMIN", "PO", "SO", "KRSO", "KRCO", "CO", "NEW", "DOMAIN")}
KEYRINGS = ("payments", "many")
ACTIVATION = b"activation secret"
APP = tree()
TOP: Any = typer.main.get_group(APP)

# Commands that run for long, start members, or end the one that is asked.
LEFT_OUT = {"demo", "up", "down", "top", "bench", "bootstrap"}

WRONG = ("", "-7", "no such", "0xzz", "9" * 25, "\x1b[31mred\u202e", "x" * 5000)

# A value that fits, by the name of what is asked for; anything else takes "one".
FITTING = {
    "settings": "label=new",
    "changes": "minimum_rsa_bits=2048",
    "signature": "data",
    "file": "data",
    "invitation": "data",
    "archive": "20260101T000000Z-1.lnha",
    "to": ".",
    "role": "krco",
    "keyring": "payments",
    "cluster_id": "00" * 16,
}

# What a decoder, Python or an enum says of itself.
NOT_OUR_WORDS = re.compile(
    r"this is a bug|Traceback|Expected `|- at `|msgspec|<[A-Z]\w*\.\w+|invalid literal|has no attribute|object is not"
    r"|\b[A-Z]\w*Error\b|codec can't|NoneType"
)


class Place:
    """A member with a cluster, and a machine that is registered with it; `run` is `lnh` there, in this process."""

    def __init__(self, root: Path, member: RunningMember) -> None:
        self.root = root
        self.member = member
        self.client = lnh.Configuration(root / "client")
        self._runner = CliRunner()
        for name, password in PASSWORDS.items():
            (root / name).write_text(password + "\n")
        (root / "data").write_bytes(b"data")

    def run(self, *words: str) -> Any:
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LNH_")}
        environment |= {f"LNH_{name}_PASSWORD_FILE": str(self.root / name) for name in PASSWORDS}
        environment |= {"LNH_CONFIG": str(self.client.directory), "XDG_RUNTIME_DIR": str(self.root)}
        environment |= {"LNH_MEMBER_DIR": str(self.member.directory.root)}
        return self._runner.invoke(APP, list(words), env=environment)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with failed.directory() as root, Processes() as processes, pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", lambda _: TOP)  # built once, not for each command
        patch.chdir(root)
        yield build(processes, root)


def build(processes: Processes, root: Path) -> Place:
    member = RunningMember(processes, root / "A", workers=1)
    member.start()
    place = Place(root, member)
    with Console(root / "A") as console:
        console.init_appliance("admin", PASSWORDS["ADMIN"])
        console.init_hsm("A", PASSWORDS["SO"], ACTIVATION)
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
    made = place.run("key", "generate", "one", "-k", "payments")
    assert made.exit_code == 0, made.output
    return place


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in TOP.commands.items():
        if name not in LEFT_OUT:
            inner = getattr(command, "commands", None)
            if inner is None:
                yield (name,), command
            else:
                yield from (((name, verb), each) for verb, each in inner.items() if name not in LEFT_OUT)


GROUPS = (Output, ConsoleOptions, ClusterOptions, AdminOptions, PoOptions, KeyringOptions, ObjectOptions)
SHARED = {field.name for group in GROUPS for field in dataclasses.fields(group)}


def takes_value(parameter: Any) -> bool:
    return not getattr(parameter, "is_flag", False) and parameter.name not in ("help", "json", "debug")


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
    for value in (*WRONG, *WRONG)[begin : begin + 3]:
        done = place.run(*path, *line(command, parameter, value))
        said = f"{path} {parameter.name}={value[:30]!r}: {done.output[:600]}"
        assert done.exit_code in (0, 1, 2, 3), said
        assert done.exception is None or isinstance(done.exception, SystemExit), said
        assert not NOT_OUR_WORDS.search(done.output), said
        assert "\x1b[31m" not in done.output, said


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


def test_without_a_terminal_a_question_says_how_to_answer_it(place: Place) -> None:
    done = place.run("keyring", "delete", "payments")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "refused: there is no terminal to ask on: Delete keyring 'payments' and every object in it?",
        "try: --yes answers yes",
    ]


def test_a_sealed_member_is_told_of_at_once_with_what_to_do_and_serves_when_it_is_activated(place: Place) -> None:
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
