"""Every command shows replies whose every text is hostile: nothing of it does anything to a terminal.

The replies are made of the types in the operation table, so a new field, or a new operation, is among them by itself.
"""

from __future__ import annotations

import enum
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect
import pytest
import typer
import typer.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

import lnh
from leaves import leaves
from lnh import console, registration, sessions
from lnh.net.connection import Connection
from lnh.registration import Greeting
from lnh_cli.main import tree
from lnh_cli.nouns import client, engine, top
from lnh_cli.support.progress import progress
from lnh_common.bus.blocking import Caller
from lnh_common.bus.curve import KeyPair
from lnh_common.errors import LnhError, NameUnknown
from lnh_common.messages.base import Behind, Operation, Skipped
from lnh_common.pkcs11 import attributes
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.wire import codec
from lnh_common.wire.channel import Statement

MARK = "owned"
CHARACTERS = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0)]),
    *"\xad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041",
]
MARKUP = "[bold red]markup[/]"
HOSTILE = "q" + "".join(f"{each}{MARK}" for each in ("\x1b]0;", "\x9b31m", "\n", "\r", *CHARACTERS)) + MARKUP
SHORT = "q" + "".join(f"{each}{MARK}" for each in ("\x1b", "\x9b", "\n", "\r", "\u202e")) + MARKUP

APP = tree()
TOP: Any = typer.main.get_group(APP)
# What starts processes, or measures for seconds, or shows what other commands said.
LEFT_OUT = {"demo", "up", "down", "bench", "version", "bootstrap", "drill", "pkcs11", "rest", "kms"}
ARCHIVE = "prod-20260101T000000Z.lnhb"

COMMANDS = {path: command for path, command in leaves(TOP) if path[0] not in LEFT_OUT}
FITTING = {
    "role": "krco", "role of a user": "monitor", "settings": "label=a", "changes": "minimum_rsa_bits=2048", "signature": "data", "file": "data",
    "invitation": "data", "archive": ARCHIVE, "to": ".", "member_dir": "member", "address": "127.0.0.1:7100",
    "cluster_id": "00" * 16, "timeout": "0", "permission": "view", "identity": "00" * 32,
}  # fmt: skip


def fake(kind: Any, field: str = "") -> Any:
    """A value of this type as it is on the wire, whose texts are hostile where its type lets them be."""
    info = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    match info:
        case msgspec.inspect.StrType():
            if info.pattern is not None:
                return ARCHIVE
            named = field in ("label", "name") or info.max_length is not None
            return SHORT[: info.max_length] if named else HOSTILE
        case msgspec.inspect.BytesType():
            return bytes([1]) * min(info.max_length or 16, max(info.min_length or 0, 16))
        case msgspec.inspect.BoolType():
            return field not in ("more", "revoked")
        case msgspec.inspect.IntType() if field in ("expires", "ends", "end"):
            return 4_000_000_000
        case msgspec.inspect.IntType():
            return max(info.ge or 0, min(7, info.le if info.le is not None else 7))
        case msgspec.inspect.FloatType():
            return 7.0
        case msgspec.inspect.EnumType():
            return next(iter(info.cls)).value
        case msgspec.inspect.TupleType():
            return [fake(each) for each in info.item_types]
        case msgspec.inspect.CollectionType():
            return [fake(info.item_type)]
        case msgspec.inspect.DictType():
            return {fake(info.key_type): fake(info.value_type)}
        case msgspec.inspect.UnionType():
            return fake(next(each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)), field)
        case msgspec.inspect.StructType():
            return {
                each.encode_name: fake_field(each) for each in info.fields if each.name not in ("behind", "skipped")
            }
        case msgspec.inspect.AnyType():
            return HOSTILE
    raise AssertionError(f"a reply has a {info}")


def fake_field(field: Any) -> Any:
    if field.name == "attributes":
        return KEY
    if field.name == "error":
        return None
    return fake(field.type, field.name)


KEY = attributes.to_wire(
    {
        Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES, Attribute.LABEL: SHORT,
        Attribute.VALUE_LEN: 32, Attribute.ENCRYPT: True, Attribute.APPLICATION: HOSTILE,
    }
)  # fmt: skip
REFUSAL = LnhError.from_wire([NameUnknown.code, HOSTILE, {"advice": HOSTILE}])
PAGES: list[Any] = []
LOOKS = top.look_again
MOST = 100  # of what one command asks


class Member:
    """A member, and all that lies between, that answers everything with hostile text.

    Attributes:
        error: what it answers instead, but to what it serves all the same.
        asked: the operations that were.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error: LnhError | None = None
        self.serves = {"session.login", "console.check"}
        self.asked: list[str] = []
        member = self

        def call(connection: Connection, operation: Operation[Any, Any], *_: object, **__: object) -> Any:
            answer = member.answer(operation)
            lists = "behind" in operation.reply.__struct_fields__
            if lists and connection.on_behind is not None:
                connection.on_behind(codec.convert(fake(Behind), Behind))
            if lists and connection.on_skipped is not None:
                connection.on_skipped((codec.convert(fake(Skipped), Skipped),))
            return answer

        def with_credential(connection: Connection, operation: Operation[Any, Any], *_: object, **__: object) -> Any:
            return codec.convert(member.answer(operation), operation.reply), bytes(32)

        def call_each(session: Any, calls: Any, *_: object, **__: object) -> Iterator[dict[str, Any]]:
            return (session.call(*each) for each in calls)

        def ask(_: Caller, operation: Operation[Any, Any], *__: object, **___: object) -> Any:
            return codec.convert(member.answer(operation), operation.reply)

        patch.setattr(Connection, "call", call)
        patch.setattr(Connection, "call_with_credential", with_credential)
        patch.setattr(Connection, "learn", lambda *_: None)
        patch.setattr(sessions.Session, "call_each", call_each)
        patch.setattr(Caller, "ask", ask)
        patch.setattr(registration, "hello", lambda address, _: Greeting(address, STATEMENT, bytes(32)))
        patch.setattr(engine, "_check_installed", lambda: None)
        patch.setattr(engine, "_findings", lambda _: member.findings())

    def findings(self) -> list[dict[str, str]]:
        """Tell what an etcd said, in its own words."""
        if self.error is not None:
            raise self.error
        return [dict.fromkeys(("check", "where", "state", "what", "do"), HOSTILE)]

    def answer(self, operation: Operation[Any, Any]) -> Any:
        self.asked.append(operation.name)
        assert len(self.asked) < MOST, f"asked again and again: {self.asked[-9:]}"
        if self.error is not None and operation.name not in self.serves:
            raise self.error
        if operation.name == "audit.show":
            return {"records": [PAGES.pop()] if PAGES else []}
        return fake(operation.reply)


STATEMENT = Statement("lnh-channel-1", bytes(16), HOSTILE, 1, bytes(1216), 1 << 40, bytes(16), bytes(32))
RECORD = {"index": 1, "time": 1, **dict.fromkeys(("identity", "role", "operation", "target", "outcome"), HOSTILE)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine that is registered with a cluster whose label is hostile, and a member's directory."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "member" / "run" / "hsm").mkdir(parents=True)
    (root / "member" / console.SOCKET).touch()
    for role in ("ADMIN", "PO", "SO", "KRSO", "KRCO", "CO", "NEW", "ACTIVATION"):
        (root / role).write_text("a password\n")
    (root / "data").write_bytes(b"data")
    (root / "runtime").mkdir(mode=0o700)
    configuration = lnh.Configuration(root / "client")
    with configuration.locked():
        keys = configuration.directory / "00.curve", configuration.directory / "00.sign"
        KeyPair.generate().save(keys[0])
        configuration.write_sign_key(keys[1], Ed25519PrivateKey.generate())
        configuration.save(
            lnh.configuration.Registration(
                index=0, cluster=bytes(16), label=HOSTILE, member="127.0.0.1:7100", member_key=bytes(32),
                identity=bytes(32), name=HOSTILE, client=bytes(16), client_key=keys[0], sign_key=keys[1], user=HOSTILE,
            )
        )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`lnh` on that machine, in a pipe or on a terminal; what it wrote."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LNH_")}
    environment |= {"LNH_CONFIG": str(place / "client"), "XDG_RUNTIME_DIR": str(place / "runtime")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "20000"}
    files = {f"LNH_{path.name}_PASSWORD_FILE": str(path) for path in place.iterdir() if path.name.isupper()}
    runner = CliRunner()

    def invoke(*words: str, tty: bool, asked: bool) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(typer.testing._NamedTextIOWrapper, "isatty", lambda _: tty)
            patch.setattr("time.sleep", lambda _: None)
            patch.setattr("lnh_cli.nouns.cluster._WIPED_WITHIN", 0.0)
            patch.setattr(top, "look_again", lambda *given: itertools.islice(LOOKS(*given), 2))
            given = environment if asked else {**environment, **files}
            done = runner.invoke(APP, list(words), env=given, input="y\n" if asked else None)
        if done.exception is None or isinstance(done.exception, SystemExit):
            return done.output
        assert "--debug" in words
        assert done.exception is REFUSAL
        return done.output + str(REFUSAL)

    return invoke


# What is called anew has a name that may be, and is what an older version let in where it is asked for.
MADE = {"create", "add", "init", "generate"}
MORE: dict[tuple[str, ...], list[str]] = {
    ("client", "register"): ["--member=127.0.0.1:7100"],
    ("member", "set"): ["--name=one"],
    ("engine", "check"): ["--endpoint=http://127.0.0.1:2379", "--prefix=lnh/prod/"],
}


def lines(path: tuple[str, ...], command: Any) -> Iterator[list[str]]:
    """The words of a command after its own, with hostile ones wherever any will do: once for each way to a member."""
    options: list[str] = MORE.get(path, [])[:]
    arguments: list[str] = []
    optional = {parameter.name for parameter in command.params if not parameter.required}
    for parameter in command.params:
        name = parameter.name
        if not parameter.required and (path, name) != (("cluster", "join"), "timeout"):
            continue
        if name == "name" and path[0] == "backup":
            name = "archive"
        if name == "role" and path[0] == "user":
            name = "role of a user"
        given = FITTING.get(name, "one" if path[-1] in MADE else SHORT)
        if parameter.param_type_name == "argument":
            arguments.append(given)
        else:
            options.append(f"{next(each for each in reversed(parameter.opts) if each.startswith('--'))}={given}")
    if "partition" in optional:
        yield [*options, f"--keyring={SHORT}", "--", *arguments]
        yield [*options, f"--partition={SHORT}", "--member-dir=member", "--", *arguments]
        return
    yield [*options, "--", *arguments]
    if "member_dir" in optional:
        yield [*options, "--member-dir=member", "--", *arguments]
    if path == ("client", "register"):
        yield ["--list"]


WRONG = [
    [SHORT], ["key", SHORT], ["digest", f"--{SHORT}"], ["digest", "data", SHORT],
    ["keyring", "create", "a", f"--total={SHORT}"], ["keyring", "list", f"--json={SHORT}"], ["digest", SHORT],
    ["backup", "download", ARCHIVE, f"--to={SHORT}"], ["backup", "now", f"--to={SHORT}"], ["backup", "show", SHORT],
    ["backup", "schedule", "--every=1", f"--from={SHORT}"], ["user", "list", f"--password-file={SHORT}"],
    ["key", "list", "-k", "a", f"--type={SHORT}"], ["sign", "a", "-k", "a", f"--mechanism={SHORT}"], ["keyring", "show", f"{SHORT}", "--debug"],
]  # fmt: skip


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words[:2])[:20].encode("unicode-escape").decode())
def test_hostile_words_of_a_command_line_are_told_harmlessly(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: list[str], tty: bool
) -> None:
    member = Member(monkeypatch)
    member.error = REFUSAL
    output = run(*words, tty=tty, asked=False)
    assert output
    assert harm(output) == [], output


def test_hostile_words_of_the_registration_script_are_told_harmlessly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20000")
    monkeypatch.setattr("sys.argv", ["LNHClientRegistration", f"--{SHORT}"])
    with pytest.raises(SystemExit):
        client.registration()
    output = capsys.readouterr().err
    assert "no such option" in output
    assert harm(output) == [], output


def test_the_words_of_a_progress_bar_are_told_harmlessly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20000")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(HOSTILE) as advance:
        advance(1, 2)
    output = capsys.readouterr().err
    assert MARK in output
    assert harm(output) == [], output


class How(enum.Enum):
    """What is said to a command: what it asked for, a refusal, or that first somebody has to answer its questions."""

    REPLIED = "replied"
    REFUSED = "refused"
    ASKED = "asked"


def harm(output: str, lets: Collection[str] = ()) -> list[str]:
    """What of the hostile text would do something to a terminal."""
    found = [
        f"{character!r} as it is" for character in CHARACTERS if character not in lets and character + MARK in output
    ]
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    if text.count("markup") != text.count(MARKUP):
        found.append("markup is taken as such")
    return found


SILENT = {
    ("audit", "check"),
    ("digest",),
    ("certificate", "verify"),
    ("role", "logout"),
    ("user", "logout"),
    ("user", "unlock"),
}  # they show nothing that a member said


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_command_lets_hostile_text_through(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    member = Member(monkeypatch)
    if path[-1] == "login":
        member.serves.clear()
    command, own = COMMANDS[path], list(path)
    has_yes = any(parameter.name == "yes" for parameter in command.params)
    lets = {"\n"} if path == ("member", "invite") else set()  # the lines of an invitation
    said = 0
    for words, how, flags in itertools.product(lines(path, command), How, ([], ["--json"])):
        for tty in (True,) if how is How.ASKED else (False, True):
            PAGES[:] = [RECORD]
            member.asked.clear()
            member.error = REFUSAL if how is How.REFUSED else None
            yes = ["--yes"] if has_yes and how is not How.ASKED else []
            output = run(*own, *flags, *yes, *words, tty=tty, asked=how is How.ASKED)
            assert harm(output, lets) == [], f"{own} {how} {'on a terminal' if tty else 'in a pipe'}: {output[:3000]!r}"
            said += MARK in output
    assert said or path in SILENT
