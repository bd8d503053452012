"""What a command line loads before it does anything, and that nothing of the tree is lost by loading little of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from leaves import leaves
from lnh_cli import main
from lnh_cli.main import contents, tree
from lnh_cli.support import command, values
from lnh_cli.support.command import Noun, Output, verb
from sizes import sized

# What takes long to load. `typer` brings the first three, and none of them is needed for what is plain.
HEAVY = {"pydantic", "rich", "markdown_it", "asyncio", "email", "msgspec", "zmq", "cryptography", "cbor2", "lnh"}
TRUNK = {
    "lnh_cli", "lnh_cli.main", "lnh_cli.support", "lnh_cli.support.pages", "lnh_cli.support.standard",
    "lnh_cli.support.terminal", "lnh_cli.support.values", "lnh_cli.support.words", "lnh_common", "lnh_common.text",
}  # fmt: skip
RUNS = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv[0] = 'lnh'
from lnh_cli.main import main
main()
"""


def run(line: str, place: Path, status: int = 0, **variables: str) -> tuple[set[str], str]:
    """What a process has loaded at the end of a command line, and what it said."""
    # Without PYTHONPATH, by which a test's processes load what makes passwords cheap (tests/startup).
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LNH_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-c", RUNS, *line.split()],
        env={**kept, "LNH_CONFIG": str(place / "lnh"), **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    *said, names = done.stderr.splitlines()
    return set(names.split()), done.stdout + "\n".join(said)


def loaded(line: str, place: Path, status: int = 0) -> set[str]:
    return run(line, place, status)[0]


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("lnh")}


def test_help_loads_the_trunk_of_the_tree_and_nothing_heavy(tmp_path: Path) -> None:
    names = loaded("--help", tmp_path)
    assert names & HEAVY == set()
    assert ours(names) == TRUNK


def test_a_page_of_help_loads_the_noun_that_it_is_about_and_nothing_heavy(tmp_path: Path) -> None:
    names = loaded("keyring list --help", tmp_path)
    assert names & HEAVY == set()
    assert {name for name in names if name.startswith("lnh_cli.nouns.")} == {"lnh_cli.nouns.keyring"}
    common = {name for name in names if name.startswith("lnh_common")}
    assert common <= {"lnh_common", "lnh_common.files", "lnh_common.limits", "lnh_common.text"}


def test_a_command_that_asks_a_cluster_loads_no_decoder_of_typers_and_no_event_loop(tmp_path: Path) -> None:
    names = loaded("keyring list --cluster 00 --timeout 2.5", tmp_path, status=1)  # this machine is not registered
    assert names & {"pydantic", "rich", "markdown_it", "asyncio", "email"} == set()
    assert {"zmq", "lnh.admin", "lnh.cluster"} <= names
    assert "lnh.keyrings" not in names  # what uses a keyring, and the tables of its mechanisms
    assert not [name for name in names if name.startswith("lnh_common.pkcs11")]
    assert {name for name in names if name.startswith("lnh_cli.nouns.")} == {"lnh_cli.nouns.keyring"}


@pytest.mark.parametrize(("line", "status", "said"), [("keyrnig list", 2, "try: lnh keyring"), ("--version", 0, ".")])
def test_what_is_about_no_branch_of_the_tree_loads_none(line: str, status: int, said: str, tmp_path: Path) -> None:
    names, told = run(line, tmp_path, status)
    assert said in told
    assert ours(names) == TRUNK


def test_a_noun_behind_two_dashes_is_found(tmp_path: Path) -> None:
    assert "Usage: lnh keyring list" in run("-- keyring list --help", tmp_path)[1]


@pytest.mark.parametrize(
    ("shell", "line", "words", "nouns"),
    [
        ("bash", "lnh ", [*main._MODULES, "version"], set()),
        ("fish", "lnh k", ["key", "keyring", "kms"], set()),
        ("bash", "lnh keyring ", ["create", "delete", "list", "policy", "rekey", "show"], {"keyring"}),
        ("fish", "lnh keyring list --cur", ["--current"], {"keyring"}),
        ("bash", "lnh key de", ["decapsulate", "delete", "derive"], {"key", "key_making"}),
    ],
)
def test_a_shell_is_told_the_words_that_may_follow(
    shell: str, line: str, words: list[str], nouns: set[str], tmp_path: Path
) -> None:
    typed = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(f"{line}.".split()) - 1)},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    names, told = run("", tmp_path, 0, _LNH_COMPLETE=f"complete_{shell}", **typed)
    assert sorted(each.split("\t")[0] for each in told.splitlines()) == sorted(words)
    assert names & {"pydantic", "asyncio", "zmq", "lnh"} == set()
    assert {name.rpartition(".")[2] for name in names if name.startswith("lnh_cli.nouns.")} == nouns


def test_a_noun_makes_the_verb_that_is_asked_for_and_all_where_there_is_none() -> None:
    def entered() -> Noun:
        app = Noun("noun", "A noun.")
        within = command.noun("within", "A noun within.")
        for each, names in ((app, ("one", "two")), (within, ("three",))):
            for name in names:
                verb(each, name, Output)(lambda _: None)
        app.add_typer(within)
        return app

    def made(app: Noun) -> set[str]:
        return {str(each.name) for each in app.registered_commands}

    app = entered()
    assert made(app) == set()
    app.make("two")
    assert made(app) == {"two"}
    app.make("two")  # again, as in a process that serves many command lines: then the others are made, too
    assert made(app) == {"one", "two"}
    for word in ("", "nothing", "within"):
        app = entered()
        app.make(word)
        assert made(app) == {"one", "two"}
        within = app.registered_groups[0].typer_instance
        assert isinstance(within, Noun)
        assert made(within) == {"three"}


def test_the_branch_of_a_verb_is_that_of_the_whole_tree() -> None:
    lasts = {path[0]: path for path, _ in leaves(typer.main.get_group(tree()))}
    assert len(lasts) > 30
    for path in lasts.values():
        assert path in dict(leaves(typer.main.get_group(tree(*path[:2]))))


@pytest.mark.parametrize("line", ["--help", "keyring --help", "keyring create --help", "sign --help"])
def test_a_page_shows_all_that_there_is_panel_by_panel(line: str) -> None:
    page = CliRunner().invoke(tree(), line.split()).stdout
    words = " ".join(page.split())
    found: Any = typer.main.get_group(tree())
    for word in line.split()[:-1]:
        found = found.commands[word]
    parameters = [each for each in found.params if not getattr(each, "hidden", False)]
    panels = {str(each.rich_help_panel) for each in parameters if each.rich_help_panel}
    for command_ in getattr(found, "commands", {}).values():
        panels |= {str(command_.rich_help_panel)} if command_.rich_help_panel else {"Commands"}
        assert f"\n  {command_.name} " in page
        assert str(command_.help).partition("\n")[0] in words
    assert {panel for panel in panels if f"\n{panel}:\n" in page} == panels
    for each in parameters:
        assert (each.opts[0] if each.param_type_name == "option" else each.name.upper()) in page or each.name in page
    assert "\x1b" not in page


def test_a_page_is_styled_on_a_terminal_unless_it_is_asked_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1mCluster\x1b[0m:" in CliRunner().invoke(contents(), ["--help"], color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(contents(), ["--help"], color=True).stdout


# --- values


def taking(annotation: Any, default: Any = None, **said: Any) -> Any:
    """The parameter of a command that takes such an option, as typer made it."""
    app = typer.Typer()

    def act(value: Any = default) -> None: ...

    act.__annotations__ = {"value": annotation}
    app.command()(act)
    return typer.main.get_command(app).params[0]


OPTIONS = {
    "text": taking(str | None),
    "given text": taking(str, "admin"),
    "number": taking(int | None),
    "numbers within bounds": taking(Annotated[int, typer.Option(min=1, max=100)], 7),
    "seconds": taking(Annotated[float, typer.Option(min=0.1, max=600)], 10.0),
    "path": taking(Path | None),
    "several": taking(list[str] | None),
    "flag": taking(bool, False),
}


def outcome(decode: Any, value: Any, parameter: Any) -> Any:
    """What a decoder makes of a value, or what it says of it."""
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    try:
        found = decode().coerce(value, param=parameter, ctx=context)
    except Exception as error:
        return type(error).__name__, str(error)
    return type(found), found


PLAIN: Any = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers().map(str),
    st.integers(-5, 700),
    st.floats(allow_nan=False).map(str),
    st.sampled_from(
        [
            "007",
            "1_000",
            " 5",
            "5 ",
            "+5",
            "1e3",
            ".5",
            "5.",
            "0x10",
            "٣",
            "-0",
            "",
            ".",
            "/",
            "/nowhere/x",
            "n" * 5000,
            "a\0b",
        ]
    ),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


@pytest.mark.skipif(not hasattr(OPTIONS["text"], "get_runtime_param"), reason="this typer has no such decoders")
@pytest.mark.parametrize("kind", sorted(OPTIONS))
@settings(max_examples=sized(50), deadline=None)
@given(value=PLAIN)
def test_what_is_taken_plainly_is_what_typers_decoder_makes_of_it(kind: str, value: Any) -> None:
    parameter = OPTIONS[kind]
    decoder = type(parameter).get_runtime_param.__get__(parameter)
    plain = outcome(lambda: values._Plain(decoder), value, parameter)
    assert plain == outcome(decoder, value, parameter)


def test_only_values_that_are_not_plain_are_left_to_typer() -> None:
    for kind, plain, other in (
        ("text", "a", 5),
        ("numbers within bounds", "100", "101"),
        ("seconds", "2.5", "601"),
        ("number", "-3", "three"),
        ("path", "/", 5),
        ("several", ("a", "b"), (1,)),
    ):
        assert values._taken(plain, OPTIONS[kind]) is not values._OTHERWISE
        assert values._taken(other, OPTIONS[kind]) is values._OTHERWISE
