"""`lnh demo`: the whole product on one machine, told step by step, each by the command that does it by hand."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Final

import typer

from lnh_cli.demo import local
from lnh_cli.demo.local import Member, Place, StepFailed, Steps
from lnh_cli.support import terminal, words

_TABS: Final = "  "
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


def find_everywhere(steps: Steps, *members: Member) -> None:
    """Find every key through every member, whichever made it."""
    found = {steps.run("lnh", "key", "list", "--keyring", "payments", through=member) for member in members}
    if len(found) != 1:
        raise StepFailed("the members do not show the same keys")


def _make_keys(steps: Steps) -> None:
    steps.say(
        "Generate keys: RSA-2048, P-256, Ed25519, AES-256, in one session of the KRCO; log in through each member"
    )
    for member in steps.place.members:
        steps.run("lnh", "role", "login", "--keyring", "payments", through=member)
    for name, asked in _KEYS:
        steps.run("lnh", "key", "generate", "--keyring", "payments", name, *asked)
    steps.environment.pop("LNH_KRCO_PASSWORD_FILE")  # from here on the sessions serve


def _lose_the_primary(steps: Steps) -> None:
    a, b, c = steps.place.members
    steps.say("Kill the primary. The others turn read-only within a lease: cryptography goes on, a write is refused")
    steps.kill(a)
    steps.wait_for(b, {a.name: "unreachable", b.name: "read-only", c.name: "read-only"})
    sign = ("--keyring", "payments", "p256", steps.place.root / "file", "--der")
    steps.run("lnh", "sign", *sign, "--output", steps.place.root / "cut-off.sig", through=b)
    generate = ("--keyring", "payments", "refused", "--type", "AES", "--bits", "256")
    steps.run("lnh", "key", "generate", *generate, fails_with=terminal.REFUSED, through=c)
    steps.say("Bring it back: everybody is read-write again, and every session goes on without a login")
    steps.start(a)
    steps.wait_for(b, {member.name: "read-write" for member in (a, b, c)})
    sign_and_check(steps, ("rsa", "p256", "ed25519"))
    encrypt_and_check(steps)


def _promote_and_remove(steps: Steps) -> None:
    a, b, c = steps.place.members
    steps.say(f"Promote {b.name} by hand; nothing is lost, and writes go on at once, through any member")
    steps.run("lnh", "member", "promote", b.name)
    steps.wait_for(a, {member.name: "read-write" for member in (a, b, c)})
    generate = ("--keyring", "payments", "made-under-b", "--type", "EC", "--curve", "P-256")
    steps.run("lnh", "key", "generate", *generate, through=c)
    steps.say(f"Lose {b.name}, the primary, for good, and delete it: {c.name}, which is asked, is promoted by itself")
    steps.kill(b)
    steps.wait_for(c, {a.name: "read-only", c.name: "read-only"})
    steps.run("lnh", "member", "delete", b.name, "--yes", through=c)
    steps.wait_for(c, {member.name: "read-write" for member in (a, c)})
    generate = ("--keyring", "payments", "made-under-c", "--type", "AES", "--bits", "256")
    steps.run("lnh", "key", "generate", *generate)
    find_everywhere(steps, a, c)


def _lose_all_but_an_archive(steps: Steps) -> None:
    """Lose everything but an archive and one HSM's sealed state, and bring the cluster back from them."""
    a, _, c = steps.place.members
    kept = steps.place.root / "kept"
    kept.mkdir(mode=0o700)
    steps.say("Back up the whole cluster to one encrypted file, and copy it away; verify it, restoring nothing")
    steps.run("lnh", "backup", "now", "--to", kept)
    archive = next(kept.glob("*.lnhb"))
    steps.run("lnh", "backup", "verify", archive.name)
    steps.say(f"Lose every member, and all of {a.name} but its HSM's sealed state")
    for member in (a, c):
        steps.kill(member)
    shutil.copytree(a.directory / "data" / "hsm", kept / "hsm")
    for member in steps.place.members:
        shutil.rmtree(member.directory)
    steps.say(f"Begin {a.name} anew, with that state; restore the archive, as the SO; register this client again")
    local.make_directories(steps, a)
    shutil.copytree(kept / "hsm", a.directory / "data" / "hsm", dirs_exist_ok=True)
    steps.start(a)
    steps.run("lnh", "backup", "restore", archive, "--member-dir", a.directory)
    local.register(steps, a)
    local.log_in(steps)
    steps.say("A signature of before verifies, and the same keys sign again")
    password = ("--password-file", steps.place.secret("krco"))
    steps.run("lnh", "role", "login", "--keyring", "payments", *password)
    root = steps.place.root
    steps.run(
        "lnh", "verify", "--keyring", "payments", "p256", root / "file", "--signature", root / "p256.sig", "--der"
    )
    sign_and_check(steps, ("p256", "ed25519"))


def demo() -> None:
    """Show it all: three members from nothing, keys, signatures, a lost primary, promotion, backup and restore."""
    began = time.monotonic()
    place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))  # sockets want a short path
    steps = Steps(place, forks=True)
    steps.environment["LNH_WORKERS"] = "1"  # three members share this machine's cores
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it, its members end with it
    kept = True  # so that a failure can be looked into
    try:
        place.create()
        (place.root / "file").write_bytes(b"A real file.\n" * 1000)
        typer.echo(f"Everything happens in D={place.root}. To type the commands yourself:")
        for name, value in place.variables().items():
            typer.echo(f"{_TABS}export {name}={value.replace(str(place.root), '$D')}")
        local.set_up(steps)
        local.make_keyring(steps)
        local.join_all(steps)
        _make_keys(steps)
        find_everywhere(steps, *place.members)
        steps.say("Sign a file with each key, and have another program verify it")
        sign_and_check(steps, ("rsa", "p256", "ed25519"))
        steps.say("Encrypt and decrypt it")
        encrypt_and_check(steps)
        _lose_the_primary(steps)
        _promote_and_remove(steps)
        _lose_all_but_an_archive(steps)
        steps.say("How it is")
        steps.run("lnh", "status")
        steps.say(f"Done in {time.monotonic() - began:.0f} s. Stopping it, and removing {place.root}")
        kept = False
    except StepFailed as error:
        terminal.refuse(str(error), f"look at the members' logs in {place.root}/*/log, then remove {place.root}")
    finally:
        with contextlib.suppress(StepFailed):
            local.stop(place)
        if not kept:
            shutil.rmtree(place.root, ignore_errors=True)


def enter(app: typer.Typer) -> None:
    """Put the verb at the top of the tree."""
    app.command("demo", cls=words.Verb)(demo)
