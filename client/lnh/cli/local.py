"""`lnh demo`, `lnh up`, `lnh down`: a whole cluster on this machine, by the commands anyone would type.

Every step is a command of this product (or `openssl`), run as it is shown. Secrets are random and in
files of mode 0600 under one directory; ports are free ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from lnh.cli import terminal

_PORTS: Final = 5
_FIRST_PORT: Final = 7100
_LAST_PORT: Final = 9100
_DIRECTORY_BYTES: Final = 60  # a longer path leaves no room for the names of the member's sockets
_STOP_SECONDS: Final = 30.0
_SECRETS: Final = ("activation", "so", "admin", "po", "krso-first", "krso", "krco")
_PASSWORD_VARIABLES: Final = ("SO", "ADMIN", "PO", "KRSO", "KRCO")
_TABS: Final = "  "


class StepFailed(Exception):
    """A command of the demo ended in another way than it should."""


class Place:
    """One cluster's directory: a member, a client's configuration, secrets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.member = root / "member"
        self.pid_file = root / "member.pid"
        self.ready = root / "ready"  # there once the cluster is set up

    def secret(self, name: str) -> Path:
        return self.root / "secrets" / name

    def create(self) -> None:
        """Make the directories, with a fresh random secret in each file."""
        for directory in (self.root, self.root / "secrets", self.root / "client", self.root / "runtime"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _SECRETS:
            descriptor = os.open(self.secret(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(18) + "\n")

    def is_one(self) -> bool:
        """Whether this directory is gone, or one that `create` made: nothing else is ever removed."""
        return not self.root.exists() or (self.root / "secrets").is_dir()

    def variables(self) -> dict[str, str]:
        """The environment in which every command finds this cluster and its passwords."""
        return {
            "LNH_CONFIG": str(self.root / "client"),
            "XDG_RUNTIME_DIR": str(self.root / "runtime"),
            "LNH_MEMBER_DIR": str(self.member),
            **{f"LNH_{name}_PASSWORD_FILE": str(self.secret(name.lower())) for name in _PASSWORD_VARIABLES},
        }


class Steps:
    """Runs and shows one command after another."""

    def __init__(self, place: Place, *, quiet: bool = False) -> None:
        self.place = place
        self.quiet = quiet
        self.environment = {**os.environ, **place.variables()}

    def say(self, text: str) -> None:
        if not self.quiet:
            typer.secho(f"\n{text}", bold=True)

    def run(self, *command: str | Path, fails_with: int = 0) -> str:
        """Run a command of this installation, show it and what it says; raises StepFailed for another exit code."""
        words = [str(word) for word in command]
        if not self.quiet:
            typer.secho(f"{_TABS}$ {self._shown(words)}", fg="cyan")
        program = self._program(words[0])
        done = subprocess.run(
            [program, *words[1:]], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        said = (done.stdout + done.stderr).rstrip()
        if done.returncode != fails_with:
            raise StepFailed(f"{self._shown(words)}\nended with {done.returncode}:\n{said}")
        if said and not self.quiet:
            typer.echo("\n".join(_TABS + line for line in said.splitlines()))
        return done.stdout

    def start(self) -> subprocess.Popen[bytes]:
        """Start the member's supervisor and wait until it is ready."""
        command = [self._program("lnh-member"), "--member-dir", str(self.place.member)]
        if not self.quiet:
            typer.secho(f"{_TABS}$ lnh-member --member-dir {self._short(str(self.place.member))} &", fg="cyan")
        running = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.place.pid_file.write_text(f"{running.pid}\n")
        self.run("lnh-member", "--member-dir", self.place.member, "--wait-ready")
        return running

    @staticmethod
    def _program(name: str) -> str:
        beside = Path(sys.executable).parent / name
        return str(beside) if beside.exists() else name

    def _short(self, word: str) -> str:
        return word.replace(str(self.place.root), "$D")

    def _shown(self, words: list[str]) -> str:
        return " ".join(self._short(word) if "/" in word else shlex.quote(word) for word in words)


def free_ports() -> int:
    """The first of five consecutive ports that are free on loopback; raises StepFailed when there are none."""
    for base in range(_FIRST_PORT, _LAST_PORT, _PORTS):
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + _PORTS):
                    one = held.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise StepFailed(f"no five free ports from {_FIRST_PORT} to {_LAST_PORT}")


def set_up(steps: Steps) -> str:
    """From an empty directory to a running one-member cluster with a registered client; its address."""
    place, port = steps.place, free_ports()
    address = f"127.0.0.1:{port}"
    steps.say("Make the member's directory, and start its five services")
    activation = place.secret("activation")
    steps.run(
        "lnh-member", "--member-dir", place.member, "--init", "--name", "member-a", "--base-port", str(port),
        "--activation-file", activation,
    )  # fmt: skip
    steps.start()
    steps.say("Initialise the appliance with its first admin, and the HSM with its security officer")
    steps.run("lnh", "appliance", "init", "--admin", "admin", "--password-file", place.secret("admin"))
    steps.run("lnh", "hsm", "init", "--label", "hsm-a", "--activation-file", activation)
    steps.say("Install the cluster package, and create the cluster: its V1 partition, PO, SMK and identity")
    steps.run("lnh", "package", "install", "cluster", "--yes")
    steps.run("lnh", "cluster", "create", "demo", "--po-password-file", place.secret("po"))
    cluster = json.loads(steps.run("lnh", "cluster", "show", "--member-dir", place.member, "--json"))
    steps.say("Register this client: the fingerprint is checked, an admin lets it in")
    steps.run(
        "LNHClientRegistration", "--member", address, "--cluster-id", cluster["cluster"],
        "--fingerprint", cluster["fingerprint"], "--user", "admin", "--name", "demo-client",
        "--password-file", place.secret("admin"),
    )  # fmt: skip
    return address


def make_keyring(steps: Steps) -> None:
    """A keyring whose KRSO has its own password and has set the KRCO."""
    place = steps.place
    steps.say("Create a keyring; give its KRSO a first password, which is good only for being changed; set the KRCO")
    steps.run("lnh", "keyring", "create", "payments")
    steps.run("lnh", "role", "init", "--keyring", "payments", "--new-password-file", place.secret("krso-first"))
    steps.run(
        "lnh", "role", "password", "--keyring", "payments", "--role", "krso",
        "--password-file", place.secret("krso-first"), "--new-password-file", place.secret("krso"),
    )  # fmt: skip
    steps.run(
        "lnh", "role", "init", "--keyring", "payments", "--role", "krco", "--new-password-file", place.secret("krco")
    )


_KEYS: Final = (
    ("rsa", ("--type", "RSA", "--bits", "2048")),
    ("p256", ("--type", "EC", "--curve", "P-256")),
    ("ed25519", ("--type", "EC_EDWARDS", "--curve", "Ed25519")),
    ("aes", ("--type", "AES", "--bits", "256")),
)
# What makes the signature one that `openssl dgst` verifies by itself.
_SIGN: Final = {"rsa": ("--mechanism", "SHA256_RSA_PKCS"), "p256": ("--der",), "ed25519": ()}
_VERIFY: Final = {
    "rsa": ("dgst", "-sha256", "-verify"),
    "p256": ("dgst", "-sha256", "-verify"),
    "ed25519": ("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"),
}


def sign_and_check(steps: Steps, keys: tuple[str, ...]) -> None:
    """Sign the file with each key and have another program verify it."""
    root = steps.place.root
    for name in keys:
        signature = root / f"{name}.sig"
        steps.run("lnh", "sign", "--keyring", "payments", name, root / "file", *_SIGN[name], "--output", signature)
        public = root / f"{name}.pem"
        steps.run("lnh", "key", "export", "--keyring", "payments", name, "--output", public)
        if shutil.which("openssl") is None:
            _verify_with_library(name, public, root / "file", signature)
            typer.echo(f"{_TABS}verified with the `cryptography` library (no openssl command here)")
            continue
        verb = _VERIFY[name]
        if verb[0] == "dgst":
            steps.run("openssl", *verb, public, "-signature", signature, root / "file")
        else:
            steps.run("openssl", *verb, public, "-in", root / "file", "-sigfile", signature)


def _verify_with_library(name: str, public: Path, file: Path, signature: Path) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(public.read_bytes())
    data, signed = file.read_bytes(), signature.read_bytes()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signed, data, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signed, data, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signed, data)
    else:
        raise StepFailed(f"key {name} is of a type this demo does not know")


def encrypt_and_check(steps: Steps) -> None:
    """Encrypt the file, decrypt it, compare."""
    root = steps.place.root
    aes = ("--keyring", "payments", "aes")
    steps.run("lnh", "encrypt", *aes, root / "file", "--output", root / "file.enc")
    steps.run("lnh", "decrypt", *aes, root / "file.enc", "--output", root / "file.dec")
    if (root / "file.dec").read_bytes() != (root / "file").read_bytes():
        raise StepFailed("the decrypted file is not the file")
    if (root / "file").read_bytes() in (root / "file.enc").read_bytes():
        raise StepFailed("the encrypted file is not encrypted")
    typer.echo(f"{_TABS}the decrypted file is the file")


def stop(place: Place) -> None:
    """Stop the member of a place, if it runs; raises StepFailed when it does not end."""
    pid = running(place)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + _STOP_SECONDS
    while running(place) is not None:
        if time.monotonic() > ends:
            raise StepFailed(f"the member (process {pid}) did not stop within {_STOP_SECONDS:.0f} s")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)  # between looks at a process that may be none of our children
    place.pid_file.unlink(missing_ok=True)


def running(place: Place) -> int | None:
    """The process of a place's member, if it runs; a number that another process has by now is not taken for it."""
    try:
        pid = int(place.pid_file.read_text())
        process = Path("/proc") / str(pid)
        words = (process / "cmdline").read_bytes().split(b"\0")
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(place.member) in words and state != "Z" else None


def demo() -> None:
    """Show it all: a cluster from nothing, keys, signatures, a restart, and nothing left behind."""
    began = time.monotonic()
    place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))  # sockets want a short path
    steps = Steps(place)
    kept = True  # so that a failure can be looked into
    try:
        place.create()
        typer.echo(f"Everything happens in D={place.root}. To type the commands yourself:")
        for name, value in place.variables().items():
            typer.echo(f"{_TABS}export {name}={value.replace(str(place.root), '$D')}")
        set_up(steps)
        make_keyring(steps)
        steps.say("Generate keys: RSA-2048, P-256, Ed25519, AES-256, in one session of the KRCO")
        steps.run("lnh", "role", "login", "--keyring", "payments")
        for name, words in _KEYS:
            steps.run("lnh", "key", "generate", "--keyring", "payments", name, *words)
        steps.run("lnh", "key", "list", "--keyring", "payments")
        (place.root / "file").write_bytes(b"A real file.\n" * 1000)
        steps.say("Sign a file with each key, and have another program verify it")
        names = tuple(name for name, _ in _KEYS if name in _VERIFY)
        sign_and_check(steps, names)
        steps.say("Encrypt and decrypt it")
        encrypt_and_check(steps)
        steps.say("Stop every process of the member and start them again; the same session goes on, without a login")
        typer.secho(f"{_TABS}$ kill $(cat $D/member.pid)", fg="cyan")
        stop(place)
        steps.start()
        steps.environment.pop("LNH_KRCO_PASSWORD_FILE")
        sign_and_check(steps, names)
        encrypt_and_check(steps)
        steps.say("How it is")
        steps.run("lnh", "status")
        steps.say(f"Done in {time.monotonic() - began:.0f} s. Stopping it, and removing {place.root}")
        kept = False
    except StepFailed as error:
        terminal.refuse(str(error), f"look at {place.member}/log, then remove {place.root}")
    finally:
        with contextlib.suppress(StepFailed):
            stop(place)
        if not kept:
            shutil.rmtree(place.root, ignore_errors=True)


Directory = Annotated[Path, typer.Option("--dir", help="Where it lives.")]


def _place_of(directory: Path) -> Place:
    root = directory.absolute()
    pointer = root / "place"
    if pointer.exists():
        return Place(Path(pointer.read_text().strip()))
    return Place(root)


def up(directory: Directory = Path(".lnh-demo")) -> None:
    """Start a one-member cluster with a registered client and a keyring, and leave it running."""
    place = _place_of(directory)
    try:
        if place.ready.exists():
            if running(place) is None:
                Steps(place, quiet=True).start()
        elif place.root.exists() and any(place.root.iterdir()):
            terminal.refuse(
                f"{directory} is not empty, and holds no finished cluster",
                f"lnh down --dir {directory} removes one that was not finished",
            )
        else:
            place = _begin(directory, place)
            steps = Steps(place, quiet=True)
            set_up(steps)
            make_keyring(steps)
            place.ready.touch()
    except BaseException as error:  # an interrupted start leaves no process behind
        stop(place)
        if isinstance(error, StepFailed):
            terminal.refuse(str(error), f"look at {place.member}/log, then lnh down --dir {directory}")
        raise
    typer.echo(f"A cluster runs in {place.root}. To use it:")
    if shutil.which("lnh") is None:
        typer.echo(f"{_TABS}export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    for name, value in place.variables().items():
        typer.echo(f"{_TABS}export {name}={shlex.quote(value)}")
    typer.echo(f"{_TABS}lnh key generate --keyring payments first --type EC --curve P-256")
    typer.echo(f"To end it: lnh down --dir {directory}")


def _begin(directory: Path, place: Place) -> Place:
    """Make the directories; elsewhere, when the path is too long for the member's sockets."""
    if len(os.fsencode(place.root)) > _DIRECTORY_BYTES:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))  # as in the demo
        (directory / "place").write_text(f"{place.root}\n")
    place.create()
    return place


def down(directory: Directory = Path(".lnh-demo"), keep: bool = False) -> None:
    """End what `lnh up` started, and remove it (`--keep` leaves its data to start again)."""
    place = _place_of(directory)
    if not directory.exists():
        typer.echo(f"{directory} holds no cluster")
        return
    if not place.is_one():
        terminal.refuse(f"{directory} was not made by lnh up", "name the directory of one that was")
    try:
        stop(place)
    except StepFailed as error:
        terminal.refuse(str(error), "end it by hand")
    if not keep:
        shutil.rmtree(place.root, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    typer.echo("stopped" if keep else "stopped and removed")


def enter(app: typer.Typer) -> None:
    """Put the verbs at the top of the tree."""
    app.command("demo")(demo)
    app.command("up")(up)
    app.command("down")(down)
