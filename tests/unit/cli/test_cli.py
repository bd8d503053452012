"""The command line without a cluster: its tree, usage errors, refusals, exit statuses and output."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lnh.objects.key_files import Form
from lnh_cli import main
from lnh_cli.main import tree
from lnh_cli.nouns import bench, key
from lnh_cli.nouns.client import RegistrationOptions, register
from lnh_cli.nouns.status import brief
from lnh_cli.support import saved, terminal
from lnh_cli.support.command import Output, with_options
from lnh_common.errors import FileModeUnsafe
from lnh_common.messages.admin import PolicyView
from lnh_common.messages.base import Behind, Skipped
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism

runner = CliRunner()
app = tree()

TREE = {
    "appliance": {"init", "show", "reset-admin", "reimage"},
    "hsm": {"init", "show", "activate", "deactivate", "factory-reset"},
    "partition": {"create", "list", "show", "delete"},
    "package": {"install", "list"},
    "cluster": {"create", "show", "policy"},
    "member": {"list", "show", "move"},
    "group": {"create", "list", "delete"},
    "user": {"add", "list", "delete", "password", "login", "logout"},
    "client": {"register", "list", "show", "revoke", "assign", "unassign"},
    "keyring": {"create", "list", "show", "delete", "policy"},
    "role": {"init", "login", "logout", "password", "reset", "list"},
    "key": {"generate", "list", "show", "set", "delete", "export", "import"},
    "certificate": {
        "import",
        "list",
        "show",
        "export",
        "delete",
        "request",
        "self-sign",
        "issue",
        "revoke",
        "crl",
        "verify",
    },
    "data": {"import", "list", "show", "export", "delete"},
    "audit": {"show", "verify"},
}
VERBS = {"sign", "verify", "encrypt", "decrypt", "random", "digest", "status", "top", "doctor", "bench"}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LNH_CONFIG", str(tmp_path / "lnh"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("LNH_CLUSTER", "LNH_MEMBER", "LNH_MEMBER_DIR", "LNH_KEYRING", "LNH_USER"):
        monkeypatch.delenv(name, raising=False)
    for role in ("ADMIN", "PO", "SO", "CO", "KRSO", "KRCO", "NEW"):
        monkeypatch.delenv(f"LNH_{role}_PASSWORD_FILE", raising=False)


def words(tree_: typer.Typer) -> set[str]:
    command = typer.main.get_group(tree_)
    return set(command.list_commands(typer.Context(command)))


def test_a_word_brings_the_branch_that_has_it_and_every_branch_is_named() -> None:
    named = words(app) - {"version"}
    assert named == set(main._MODULES)
    for word in named:
        branch = words(tree(word))
        assert word in branch
        assert len(branch) < len(named) / 2
    assert words(tree("nonsense")) == words(app) == words(tree("version"))


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_first_page_of_help_is_the_whole_trees_without_what_is_behind_it(width: str) -> None:
    pages = [runner.invoke(of, ["--help"], env={"COLUMNS": width}) for of in (main.contents(), app)]
    assert [page.exit_code for page in pages] == [0, 0]
    assert pages[0].stdout == pages[1].stdout
    code = "import sys; from lnh_cli import main; main.contents(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not [
        name for name in loaded.stdout.split() if name.startswith(("lnh_cli.nouns.", "lnh_cli.demo", "lnh_cli.drill"))
    ]


def test_each_line_of_the_first_page_is_what_the_command_says_of_itself() -> None:
    command = typer.main.get_group(app)
    said = {name: str(each.help).split("\n")[0] for name, each in command.commands.items() if name != "version"}
    assert said == main._ABOUT


@pytest.mark.parametrize(("noun", "verbs"), TREE.items())
def test_every_noun_has_its_verbs_and_each_explains_itself(noun: str, verbs: set[str]) -> None:
    for verb in verbs:
        result = runner.invoke(app, [noun, verb, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output
        assert "--json" in result.output


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_verbs_without_a_noun_explain_themselves(verb: str) -> None:
    assert runner.invoke(app, [verb, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["keyring", "create"],
        ["keyring", "create", "a", "--total", "many"],
        ["hsm", "show"],
        ["nonsense"],
        ["sign", "ca"],
        ["sign", "ca", "--partition", "p"],
        ["key", "generate", "a", "-k", "k", "--set", "token=false"],
        ["key", "generate", "a", "-k", "k", "--type", "DES"],
        ["key", "set", "a", "label", "-k", "k"],
        ["sign", "ca", "-k", "k", "-m", "MD5_RSA"],
        ["client", "register"],
        ["role", "reset", "-k", "k", "--role", "king", "--color"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == terminal.USAGE


def test_a_refusal_is_two_lines_on_stderr_and_exits_with_1() -> None:
    result = runner.invoke(app, ["keyring", "create", "payments", "--total", "200"])
    assert result.exit_code == terminal.REFUSED
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "refused: 200 keyrings in one call; at most 100",
        "try: lnh keyring create payments --total 100, then --total 100 --index 101",
    ]


def test_without_a_registration_the_advice_is_to_register() -> None:
    result = runner.invoke(app, ["keyring", "list"])
    assert result.exit_code == terminal.REFUSED
    assert result.stderr.splitlines()[1] == "try: run LNHClientRegistration"


def test_a_member_that_does_not_run_exits_with_3(tmp_path: Path) -> None:
    result = runner.invoke(app, ["hsm", "show", "--member-dir", str(tmp_path)])
    assert result.exit_code == terminal.UNREACHABLE
    assert result.stderr.startswith("refused: no member runs in")
    unused = ["client", "register", "--member", "127.0.0.1:9", "--timeout", "0.2"]
    result = runner.invoke(app, unused)
    assert result.exit_code == terminal.UNREACHABLE
    assert result.stderr.startswith("refused: nobody answers at 127.0.0.1:9 (its door is port 13)")


def test_there_is_no_traceback_unless_asked_for(tmp_path: Path) -> None:
    arguments = ["hsm", "show", "--member-dir", str(tmp_path)]
    assert "Traceback" not in runner.invoke(app, arguments).output
    assert runner.invoke(app, [*arguments, "--debug"]).exception is not None


def test_a_bug_is_two_lines_unless_its_traceback_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody thought of that")

    monkeypatch.setattr("lnh.console.Console.__init__", broken)
    result = runner.invoke(app, ["hsm", "show", "--member-dir", str(tmp_path)])
    assert result.exit_code == terminal.REFUSED
    assert result.stderr.splitlines()[0] == "refused: this is a bug: ZeroDivisionError: nobody thought of that"
    debugged = runner.invoke(app, ["hsm", "show", "--member-dir", str(tmp_path), "--debug"])
    assert isinstance(debugged.exception, ZeroDivisionError)


def test_the_version_is_told_by_word_and_by_option() -> None:
    assert runner.invoke(app, ["--version"]).stdout == runner.invoke(app, ["version"]).stdout != ""


def test_destruction_is_not_done_when_nobody_can_be_asked(tmp_path: Path) -> None:
    result = runner.invoke(app, ["appliance", "reimage", "--member-dir", str(tmp_path)])
    assert result.exit_code == terminal.USAGE
    assert "--yes" in result.stderr


def test_a_password_comes_from_a_file_or_the_variable_that_names_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_text("correct horse\n")
    assert terminal.read_secret("KRCO", path) == "correct horse"
    monkeypatch.setenv("LNH_KRCO_PASSWORD_FILE", str(path))
    assert terminal.read_secret("KRCO") == "correct horse"
    path.unlink()
    with pytest.raises(typer.Exit):
        terminal.read_secret("KRCO")


def test_digest_agrees_with_hashlib_and_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    wanted = hashlib.sha384(path.read_bytes()).hexdigest()
    plain = runner.invoke(app, ["digest", str(path), "--mechanism", "sha384"])
    assert plain.stdout == wanted + "\n"
    printed = runner.invoke(app, ["digest", str(path), "--mechanism", "SHA384", "--json"])
    assert json.loads(printed.stdout) == {"mechanism": "SHA384", "digest": wanted}
    assert runner.invoke(app, ["digest"], input=b"abc").stdout.strip() == hashlib.sha256(b"abc").hexdigest()


def test_a_table_in_a_pipe_is_aligned_text_and_json_has_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    table, as_json = Output(), Output(json=True)
    rows: list[dict[str, object]] = [
        {"label": "a", "id": b"\x01", "more": 1},
        {"label": "longer", "id": b"\x02", "more": None},
    ]
    table.rows(rows, "label", "id")
    assert capsys.readouterr().out.splitlines() == ["label   id", "a       01", "longer  02"]
    as_json.rows(rows, "label", "id")
    assert json.loads(capsys.readouterr().out)[1] == {"label": "longer", "id": "02", "more": None}


def test_what_may_not_be_all_there_is_says_so_on_stderr_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    table, as_json = Output(), Output(json=True)
    for each in (table, as_json):
        each.note_behind(Behind(whole_until=1_700_000_000_500, behind_ms=60_000))
        each.note_behind(Behind(whole_until=1_700_000_000_500, behind_ms=61_000))
        said = capsys.readouterr().err
        assert said.count("since 2023-11-14 22:13:20 UTC, so what it lists may not be all") == 1
        assert "--current" in said
    table.rows([{"label": "a"}], "label")
    assert capsys.readouterr().out.splitlines() == ["label", "a"]
    told = {"current": False, "whole_until": "2023-11-14T22:13:20Z"}
    as_json.rows([{"label": "a"}], "label")
    assert json.loads(capsys.readouterr().out) == [{"label": "a", **told}]
    as_json.record({"label": "a"})
    assert json.loads(capsys.readouterr().out) == {"label": "a", **told}
    as_json.note_behind(Behind(whole_until=0, behind_ms=60_000))
    as_json.record(PolicyView(policy={}, behind=Behind(whole_until=0, behind_ms=60_000)))
    assert json.loads(capsys.readouterr().out) == {"policy": {}, "current": False, "whole_until": None}


def test_what_a_listing_leaves_out_is_said_on_stderr_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    as_json = Output(json=True)
    as_json.note_skipped((Skipped(id=b"\1" * 16, why="the stored user record was changed"),))
    said = capsys.readouterr().err
    assert said == f"left out: {'01' * 16}: the stored user record was changed. This member is damaged: lnh doctor\n"
    as_json.rows([{"label": "a"}], "label")
    left_out = [{"id": "01" * 16, "why": "the stored user record was changed"}]
    assert json.loads(capsys.readouterr().out) == {"items": [{"label": "a"}], "skipped": left_out}
    as_json.note_behind(Behind(whole_until=0, behind_ms=60_000))
    as_json.rows([], "label")
    told = {"current": False, "whole_until": None}
    assert json.loads(capsys.readouterr().out) == {**told, "items": [], "skipped": left_out}


def test_no_registrations_is_an_empty_json_list() -> None:
    result = runner.invoke(app, ["client", "register", "--list", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == []


def test_the_registration_script_is_the_same_command() -> None:
    script = typer.Typer()
    script.command()(with_options(register, RegistrationOptions))
    assert runner.invoke(script, ["--list"]).exit_code == 0
    for option in ("--member", "--cluster-id", "--fingerprint", "--index", "--monitor", "--remove"):
        assert option in runner.invoke(script, ["--help"]).output


def test_kept_sessions_are_refused_in_a_directory_others_can_enter(tmp_path: Path) -> None:
    (tmp_path / "lnh").mkdir()
    (tmp_path / "lnh").chmod(0o755)  # whatever the umask
    with pytest.raises(FileModeUnsafe):
        saved._directory()
    (tmp_path / "lnh").chmod(0o700)
    assert saved._directory() == tmp_path / "lnh"


def test_percentiles_are_of_the_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert bench.percentile(ordered, 0.5) == 501
    assert bench.percentile(ordered, 0.999) == 1000
    assert bench.percentile([7.0], 0.99) == 7


def test_the_command_line_starts_without_loading_the_sdk() -> None:
    code = "import sys; from lnh_cli.main import tree; tree(); print(*(m for m in ('zmq', 'cryptography', 'rich') if m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--every 6 --off", "more than one schedule"),
        ("--daily 25:00", "no time of day"),
        ("--weekly Sunday", "no time of day"),
        ("--weekly Someday", "no day of the week"),
        ("--keep 3", "--keep without"),
        ("--on member-b", "--on without"),
        ("--off --keep 3", "--keep without"),
        ("--zone UTC", "--zone without"),
        ("--every 6 --zone UTC", "--zone without"),
        ("--daily 02:30 --from 2026-01-01T00:00", "--from without"),
    ],
)
def test_a_schedule_that_says_too_much_or_too_little_is_refused_before_any_login(words: str, what: str) -> None:
    result = runner.invoke(app, ["backup", "schedule", *words.split()])
    assert result.exit_code == terminal.USAGE
    assert what in result.output
    assert "try:" in result.output


def test_a_place_that_cannot_take_an_archive_is_refused_before_one_is_made(tmp_path: Path) -> None:
    for words in (["now"], ["download", "prod-20260101T000000Z.lnhb"]):
        result = runner.invoke(app, ["backup", *words, "--to", str(tmp_path / "none")])
        assert result.exit_code == terminal.USAGE
        assert "is no directory" in result.output


@pytest.mark.parametrize("verb", ["show", "verify", "download", "delete", "restore"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "prod.txt", "none/there.lnhb", ".hidden.lnhb"])
def test_what_no_archive_can_be_called_is_refused_before_anybody_is_asked(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no file has this name: `restore` takes one too
    result = runner.invoke(app, ["backup", verb, name])
    assert result.exit_code == terminal.USAGE
    assert f"no archive is called {name!r}" in result.output


def test_the_line_of_a_service_has_words_and_times_and_no_ids() -> None:
    detail = {
        "schedule": "daily at 02:30 Europe/Berlin, keeping 14", "next": 1_767_225_600, "last": 0, "hash": "0a" * 32,
        "last_problem": "/srv/lnh/backup: No space left on device", "problem": "", "places": [{"name": "worker-0"}],
    }  # fmt: skip
    assert brief(detail) == {
        "schedule": "daily at 02:30 Europe/Berlin, keeping 14", "next": "2026-01-01T00:00:00Z", "last": 0,
        "last_problem": "/srv/lnh/backup: No space left on device",
    }  # fmt: skip


def test_a_policys_mechanisms_are_given_and_shown_by_name() -> None:
    from lnh.objects.encoding import named_policy as named
    from lnh_cli.support.settings import parsed

    given = parsed(["allowed_mechanisms=ecdsa_sha256,CKM_AES_GCM", 'weak_mechanisms=["AES_ECB", 1]', "fips=true"])
    assert given == {
        "allowed_mechanisms": [Mechanism.ECDSA_SHA256, Mechanism.AES_GCM],
        "weak_mechanisms": [Mechanism.AES_ECB, Mechanism.RSA_PKCS],
        "fips": True,
    }
    assert parsed(["allowed_mechanisms=null", "weak_mechanisms="]) == {
        "allowed_mechanisms": None,
        "weak_mechanisms": [],
    }
    shown = {"allowed_mechanisms": [Mechanism.AES_GCM.value, 99], "weak_mechanisms": [], "minimum_rsa_bits": 2048}
    assert named(shown) == shown | {"allowed_mechanisms": ["AES_GCM", 99]}
    assert named({"allowed_mechanisms": None}) == {"allowed_mechanisms": None}


def test_a_template_is_set_by_each_of_its_attributes() -> None:
    settings = ["unwrap-template.derive=true", "unwrap_template.ALLOWED_MECHANISMS=AES_GCM,HKDF_DERIVE", "wrap=yes"]
    assert key.parse_settings([*settings, "derive_template="]) == {
        "unwrap_template": {
            Attribute.DERIVE.value: True,
            Attribute.ALLOWED_MECHANISMS.value: [Mechanism.AES_GCM.value, Mechanism.HKDF_DERIVE.value],
        },
        "wrap": True,
        "derive_template": {},
    }


@pytest.mark.parametrize(
    ("setting", "said", "advised"),
    [
        ("unwrap_template=derive", "set by each of its attributes", "unwrap_template.derive=true"),
        ("unwrap_template.wrap_template=", "holds no other template", "unwrap_template.derive=true"),
        ("label.derive=true", "label is no template", "wrap_template, unwrap_template, derive_template"),
        ("unwrap_template.derive=maybe", "unwrap_template.derive is true or false, not 'maybe'", "derive=true"),
        ("unwrap_template.derive", "'unwrap_template.derive' is not NAME=VALUE", "label=new"),
        ("unwrap_template.nothing=1", "unknown attribute: nothing", ""),
    ],
)
def test_a_template_that_is_set_wrongly_is_told_how(setting: str, said: str, advised: str) -> None:
    done = runner.invoke(app, ["key", "generate", "a", "-k", "k", "--set", setting])
    assert done.exit_code
    assert said in done.stderr
    assert advised in done.stderr


def test_a_digest_in_the_hsm_wants_a_keyring(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    done = runner.invoke(app, ["digest", str(path), "--in-hsm"])
    assert done.exit_code == terminal.USAGE
    assert "no keyring named" in done.stderr


@pytest.mark.parametrize("words", ["key generate a -k payments", "key import -k payments"])
@pytest.mark.parametrize("setting", ["label=b", "id=0a", "key_type=0"])
def test_an_attribute_that_has_an_option_is_not_set_beside_it(words: str, setting: str) -> None:
    done = runner.invoke(app, [*words.split(), "--set", setting])
    assert done.exit_code == terminal.USAGE
    assert f"--set {setting.partition('=')[0]}: it has an option of its own" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("key import -k payments --form zip", "no form 'zip'"),
        ("key export a -k payments --form zip", "no form 'zip'"),
        ("certificate request a -k payments --subject a", "is no name such as"),
        ("certificate request a -k payments --subject CN=a --name a", "name 'a'"),
        ("certificate self-sign a -k payments --subject CN=a --profile web", "no profile 'web'"),
        ("certificate self-sign a -k payments --subject CN=a --days 0", "'--days'"),
        ("certificate issue a none.csr -k payments --profile server", "none.csr cannot be read"),
        ("certificate issue a - -k payments --profile server", "no request in PEM or DER"),
        ("certificate revoke a xyz -k payments --yes", "'xyz' is no serial number"),
        ("certificate revoke a 0a -k payments --yes --reason none", "no reason 'none'"),
        ("certificate list -k payments --serial xyz", "'xyz' is no serial number"),
        ("data import a none -k payments", "none cannot be read"),
    ],
)
def test_what_is_wrong_about_certificates_and_files_is_said_first(words: str, said: str) -> None:
    done = runner.invoke(app, words.split())
    assert done.exit_code in (terminal.REFUSED, terminal.USAGE)
    assert said in done.stderr.splitlines()[0]


def test_the_forms_of_files_on_the_command_line_are_those_that_are_read() -> None:
    assert tuple(form.value for form in Form) == key._READ
