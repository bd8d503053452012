"""Words that are no commands lead to the one that was meant, and never by chance to one that removes something."""

from __future__ import annotations

import string

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from leaves import leaves
from lnh_cli import main
from lnh_cli.main import tree
from lnh_cli.support import terminal, words

app = tree()
TOP = typer.main.get_group(app)
runner = CliRunner()


def group_of(noun: str) -> typer.core.TyperGroup:
    group = TOP
    for word in noun.split():
        found = group.commands[word]
        assert isinstance(found, words.Group)
        group = found
    return group


NOUNS = ["", *main._NOUNS, "user role"]
COMMANDS = {noun: list(group_of(noun).commands) for noun in NOUNS}


def leads_to(noun: str, word: str) -> str:
    return word if word in COMMANDS[noun] else words.meant(noun, word, COMMANDS[noun])


def is_command(advice: str) -> bool:
    """Whether each command of "a, or b" is one, or a help page."""
    for each in advice.split(", or "):
        noun = max((noun for noun in COMMANDS if f"{each} ".startswith(f"{noun} ".lstrip())), key=len)
        word = each.removeprefix(noun).split()[:1]
        if word not in [
            ["--help"],
            *([command] for command in COMMANDS[noun] if f"{noun} {command}".strip() not in COMMANDS),
        ]:
            return False
    return True


@pytest.mark.parametrize("noun", [noun for noun in NOUNS if noun])
@pytest.mark.parametrize("word", words.TRIED_FIRST)
def test_each_noun_has_the_words_that_are_tried_first_or_leads_to_what_it_has(noun: str, word: str) -> None:
    meant = leads_to(noun, word)
    assert meant == word or is_command(meant), meant
    if word != "delete" and meant != word:
        assert meant.split()[-1] not in words.DESTRUCTIVE


@pytest.mark.parametrize("noun", words.ELSEWHERE)
def test_what_stands_elsewhere_is_a_command_and_its_word_is_none(noun: str) -> None:
    for word, advice in words.ELSEWHERE[noun].items():
        assert word not in COMMANDS[noun]
        assert is_command(advice), advice


def test_every_command_that_asks_before_it_destroys_is_known_as_such() -> None:
    asking = {
        path[-1]
        for path, command in leaves(TOP)
        if any("--yes" in getattr(option, "opts", ()) for option in command.params)
    }
    assert asking - {"drill", "install", "migrate", "register", "set"} <= words.DESTRUCTIVE


@given(noun=st.sampled_from(NOUNS), word=st.text(string.ascii_lowercase + "-", min_size=1, max_size=12))
def test_no_word_is_led_by_likeness_to_a_command_that_removes_or_replaces(noun: str, word: str) -> None:
    meant = leads_to(noun, word)
    said_so = word in words.DESTRUCTIVE or word in words._SAME or word in words.ELSEWHERE.get(noun, {})
    assert said_so or meant.split()[-1] not in words.DESTRUCTIVE


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        (["backup", "create"], "lnh backup now"),
        (["backup", "restor"], "lnh backup --help"),
        (["key", "describe", "a"], "lnh key show"),
        (["key", "create", "a"], "lnh key generate"),
        (["user", "create"], "lnh user add"),
        (["user", "role", "get", "clerk"], "lnh user role show"),
        (["user", "role", "remove", "clerk"], "lnh user role delete"),
        (["client", "delete", "web"], "lnh client revoke"),
        (["keyz"], "lnh key"),
        (["login"], "lnh role login, or user login"),
    ],
)
def test_a_word_that_is_no_command_is_answered_in_two_lines(typed: list[str], advice: str) -> None:
    result = runner.invoke(app, typed)
    assert result.exit_code == terminal.USAGE
    assert result.stderr.splitlines()[1] == f"try: {advice}"


@pytest.mark.parametrize(
    ("typed", "said", "advice"),
    [
        (
            "role init",
            "missing option '--keyring' / '-k'",
            "lnh role init --keyring KEYRING; lnh keyring list shows them",
        ),
        (
            "cluster join",
            "missing option '--invitation'",
            "lnh cluster join --invitation INVITATION; lnh member invite",
        ),
        ("client show", "missing argument 'name'", "lnh client show NAME"),
        ("key show", "missing argument 'KEY'", "lnh key show KEY; lnh key list shows them"),
        ("key list --foo", "no such option: --foo", "lnh key list --help"),
        ("--foo", "no such option: --foo", "lnh --help"),
        ("keyring create a b", "unexpected extra argument", "lnh keyring create --help"),
        ("bench -k a --size abc", "'--size'", "lnh bench --help"),
        ("bench -k a --size 0", "'--size'", "lnh bench --help"),
        ("key list -k a --timeout x", "'--timeout'", "lnh key list --help"),
        ("key list -k a --timeout 601", "'--timeout'", "lnh key list --help"),
    ],
)
def test_half_a_command_line_is_answered_in_two_lines_that_say_how_to_complete_it(
    typed: str, said: str, advice: str
) -> None:
    result = runner.invoke(app, typed.split(), prog_name="lnh", env={"LNH_KEYRING": None})
    assert result.exit_code == terminal.USAGE
    first, second = result.stderr.splitlines()
    assert first.startswith("refused: ")
    assert said in first
    assert "Input should" not in first
    assert second.startswith(f"try: {advice}")


def test_a_noun_by_itself_shows_its_commands() -> None:
    result = runner.invoke(app, ["role"])
    assert "Usage:" in result.output
    assert "refused" not in result.output


def test_the_help_page_has_its_panels_in_order_and_each_is_sorted() -> None:
    shown = runner.invoke(app, ["--help"]).stdout
    places = [shown.index(panel) for panel in main._PANELS]
    assert places == sorted(places)
    for noun in NOUNS[1:]:
        group = group_of(noun)
        assert isinstance(group, words.Group)
        assert group.list_commands(typer.Context(group)) == sorted(COMMANDS[noun])
