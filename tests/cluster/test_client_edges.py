"""What users of other HSMs ran into, against a real member: sizes, streams, encodings, forks, names, odd surroundings."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from typer.testing import CliRunner

import lnh
import lnh.aio
import lnh.aio.admin
import lnh.net.channel
from commands import Forked
from lnh.net.requests import Requests
from lnh_cli.main import tree
from lnh_common import limits
from lnh_common.messages.admin import KEYRING_LIST
from lnh_common.messages.base import Effect, Operation
from lnh_common.messages.session import ENDPOINTS, HELLO, LOGIN
from lnh_common.pkcs11.attributes import Attribute
from lnh_pkcs11.places import p11_kit_client
from lnh_pkcs11.ways import Way
from models.gateway import SocketProgram
from sites import ADMIN, KRCO, Site
from waits import exit_code_of

M = lnh.Mechanism
MOST = limits.REQUEST_BYTES


@pytest.fixture(scope="module")
def session(site: Site) -> Iterator[lnh.KeyringSession]:
    with site.connect(timeout=30) as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        yield session


@pytest.fixture(scope="module")
def rsa_pair(session: lnh.KeyringSession) -> tuple[lnh.PublicKey, lnh.PrivateKey]:
    return session.generate_keypair(lnh.KeyType.RSA, 2048, token=False, timeout=60)


@pytest.mark.parametrize("mechanism", [M.AES_GCM, M.AES_CBC_PAD, M.AES_CBC, M.AES_CTR, M.CHACHA20_POLY1305])
def test_what_encrypts_decrypts_at_every_size_up_to_the_limit(session: lnh.KeyringSession, mechanism: M) -> None:
    key_type = lnh.KeyType.CHACHA20 if mechanism is M.CHACHA20_POLY1305 else lnh.KeyType.AES
    key = session.generate_key(key_type, token=False, allowed_mechanisms=[mechanism])
    whole_blocks = mechanism is M.AES_CBC
    for size in (0, 1, 16, MOST - 17, MOST - 16, MOST - 15, MOST):
        if whole_blocks and size % 16:
            continue
        data = os.urandom(size)
        assert key.decrypt(key.encrypt(data, mechanism), mechanism) == data
    with pytest.raises(lnh.DataLength):
        key.encrypt(bytes(MOST + 16), mechanism)


def test_associated_data_of_any_size_that_is_taken_comes_back(session: lnh.KeyringSession) -> None:
    key = session.generate_key(lnh.KeyType.AES, token=False)
    for size in (1, limits.AAD_BYTES - 1, limits.AAD_BYTES):
        about = lnh.GcmParameters(aad=os.urandom(size))
        assert key.decrypt(key.encrypt(bytes(MOST), parameters=about), parameters=about) == bytes(MOST)


def test_rsa_decrypts_what_it_encrypts_up_to_the_limit(rsa_pair: tuple[lnh.PublicKey, lnh.PrivateKey]) -> None:
    public, private = rsa_pair
    for size in (0, 1, 190):
        assert private.decrypt(public.encrypt(bytes(size))) == bytes(size)
    with pytest.raises(lnh.DataLength):
        public.encrypt(bytes(191))


def test_all_of_a_pipe_and_of_a_socket_is_signed(session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, token=False)
    message = os.urandom(300_000)

    def signed(reading: Any, write: Callable[[bytes], object], close: Callable[[], object]) -> bytes:
        def feed() -> None:
            for start in range(0, len(message), 10_000):
                write(message[start : start + 10_000])
            close()

        thread = threading.Thread(target=feed)
        thread.start()
        with reading:
            signature = private.sign(reading)
        thread.join()
        return signature

    reading, writing = os.pipe()
    by_pipe = signed(os.fdopen(reading, "rb", 0), lambda data: os.write(writing, data), lambda: os.close(writing))
    one, other = socket.socketpair()
    with one:
        by_socket = signed(one.makefile("rb", buffering=0), other.sendall, other.close)
    assert public.verify(message, by_pipe)
    assert public.verify(message, by_socket)


@pytest.mark.parametrize(("name", "count"), [("ML-DSA-87", 300), ("ML-DSA-44", 500)])
def test_a_batch_whose_answer_is_longer_than_a_message_is_cut(
    session: lnh.KeyringSession, name: str, count: int
) -> None:
    public, private = session.generate_keypair(lnh.KeyType.ML_DSA, parameter_set=name, token=False)
    messages = [b"m%d" % number for number in range(count)]
    signatures = private.sign_many(messages, timeout=60)
    assert len(signatures) == count
    assert public.verify(messages[-1], memoryview(signatures[-1]))
    assert not public.verify(messages[-1], bytes(limits.SIGNATURE_BYTES + 1))


def test_a_batch_that_no_answer_holds_is_refused_by_the_hsm_at_once(session: lnh.KeyringSession) -> None:
    """As another SDK may ask, which does not count."""
    from lnh_common.messages import objects as wire

    _, private = session.generate_keypair(lnh.KeyType.ML_DSA, parameter_set="ML-DSA-87")
    many = wire.UseMany(handle=private.handle, mechanism=M.ML_DSA.value, items=tuple([b"x"] * 300))
    began = time.monotonic()
    with pytest.raises(lnh.DataLength, match="300 results"):
        session.ask(wire.SIGN_MANY, many, 30.0)
    assert time.monotonic() - began < 10
    private.destroy()


def certificate(key: Any, hash_: Any, **how: Any) -> x509.Certificate:
    now, name = dt.datetime.now(dt.timezone.utc), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return builder.sign(key, hash_, **how)


def test_a_certificate_verifies_or_its_padding_is_refused(rsa_pair: tuple[lnh.PublicKey, lnh.PrivateKey]) -> None:
    key: Any = rsa_pair[1].as_cryptography()
    made = 0
    for hash_ in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512(), hashes.SHA224()):
        for mask in (hashes.SHA1(), hashes.SHA256(), hashes.SHA384()):
            for salt in (0, 20, 32, padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH):
                how = padding.PSS(padding.MGF1(mask), salt)
                try:
                    made_one = certificate(key, hash_, rsa_padding=how)
                except UnsupportedAlgorithm:
                    assert mask.name != hash_.name or hash_.name == "sha224"
                    continue
                made_one.verify_directly_issued_by(made_one)
                made += 1
    assert made == 10, "of PSS"
    plain = certificate(key, hashes.SHA256())
    plain.verify_directly_issued_by(plain)


def test_every_parameter_of_a_signature_is_honoured_or_refused(
    session: lnh.KeyringSession, rsa_pair: tuple[lnh.PublicKey, lnh.PrivateKey]
) -> None:
    key: Any = rsa_pair[1].as_cryptography()
    public = key.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 17)
    public.verify(key.sign(b"data", pss, hashes.SHA256()), b"data", pss, hashes.SHA256())
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"data")
    hashed = digest.finalize()
    public.verify(key.sign(hashed, pss, Prehashed(hashes.SHA256())), b"data", pss, hashes.SHA256())
    raw = key.sign(b"raw", padding.PKCS1v15(), NoDigestInfo())
    assert public.recover_data_from_signature(raw, padding.PKCS1v15(), None) == b"raw"
    with pytest.raises(UnsupportedAlgorithm, match="AUTO"):
        key.sign(b"x", padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256())
    with pytest.raises(ValueError, match="32"):
        key.sign(b"short", pss, Prehashed(hashes.SHA256()))
    with pytest.raises(TypeError):
        key.sign(5, pss, hashes.SHA256())
    for mask in (hashes.SHA1(), hashes.SHA256()):
        oaep = padding.OAEP(padding.MGF1(mask), hashes.SHA256(), b"label")
        assert key.decrypt(public.encrypt(b"x", oaep), oaep) == b"x"
    with pytest.raises(UnsupportedAlgorithm, match="MGF1 with sha1 beside sha256"):
        key.sign(b"x", padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA256())
    _, private = session.generate_keypair(lnh.KeyType.EC, token=False)
    of_ec: Any = private.as_cryptography()
    of_ec.public_key().verify(
        of_ec.sign(hashed, ec.ECDSA(Prehashed(hashes.SHA256()))), b"data", ec.ECDSA(hashes.SHA256())
    )
    with pytest.raises(UnsupportedAlgorithm, match="deterministic"):
        of_ec.sign(b"x", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    with pytest.raises(ValueError, match="32"):
        of_ec.sign(b"short", ec.ECDSA(Prehashed(hashes.SHA256())))


def test_an_encoding_of_a_value_is_that_value_wherever_it_is_given(session: lnh.KeyringSession) -> None:
    zeros = bytes.fromhex("00010001")
    named: dict[str, Any] = {"public_exponent": zeros}
    public, _ = session.generate_keypair(lnh.KeyType.RSA, 2048, token=False, timeout=60, **named)
    assert public[Attribute.PUBLIC_EXPONENT] == b"\x01\x00\x01"
    assert public in list(session.find(public_exponent=zeros, token=False))
    text = b"\x13\x0cedwards25519"
    for given in ({"ec_params": text}, {"public": {Attribute.EC_PARAMS: text}}):
        edwards, _ = session.generate_keypair(lnh.KeyType.EC_EDWARDS, token=False, **given)
        assert edwards[Attribute.EC_PARAMS] == bytes.fromhex("06032b6570")


def test_a_child_is_told_whose_the_session_is_and_makes_its_own(site: Site, session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, token=False)
    assert public.verify(b"a", private.sign(b"a"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            private.sign(b"child", timeout=3)
        except lnh.ConnectionClosed:
            with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as own:
                status = 0 if len(own.random(8)) == 8 else 2
        finally:
            os._exit(status)
    assert exit_code_of(child) == 0
    assert public.verify(b"b", private.sign(b"b"))


@pytest.mark.parametrize("apart", [-1000, 1000])
def test_a_clock_that_is_wrong_is_what_is_told_of(
    session: lnh.KeyringSession, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    monkeypatch.setattr(
        lnh.net.channel, "time", SimpleNamespace(time=lambda: time.time() + apart, monotonic=time.monotonic)
    )
    with pytest.raises(lnh.ClockSkew, match=r"1000 s (ahead of|behind) this member's") as refused:
        session.random(8)
    assert "clock" in refused.value.advice
    assert "timeout" not in str(refused.value)


# --- the command line


_OF_A_SHELL = frozenset("<>&'")


def _text(said: bytes) -> str:
    return said.decode("utf-8", "replace")


class Line:
    """Runs a command line; in a shell of its own where it needs one, or a Python that begins in surroundings of its own."""

    def __init__(self, site: Site, place: Path) -> None:
        self.place = place
        self.directory = site.directory
        (place / "krco").write_text(KRCO + "\n")
        self.environment = {
            **os.environ, "LNH_CONFIG": str(site.directory), "XDG_RUNTIME_DIR": str(place), "LNH_KEYRING": "payments",
            "LNH_KRCO_PASSWORD_FILE": str(place / "krco"), "PYTHON": sys.executable,
        }  # fmt: skip

    def run(self, line: str, status: int | None = 0, **environment: str) -> str:
        if environment or not _OF_A_SHELL.isdisjoint(line):
            result = subprocess.run(
                ["bash", "-c", line.replace("lnh ", "$PYTHON -m lnh_cli.main ")],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=60,
                check=False,
                cwd=self.place,
                env=self.environment | environment,
            )
            code, out, said = result.returncode, _text(result.stdout), _text(result.stderr)
        else:
            done = Forked(line.split(), self.environment, self.place).wait()
            code, out, said = done.code, done.out, done.err
        assert "this is a bug" not in said
        assert "Traceback" not in said
        assert status is None or code == status, said
        return out or said


@pytest.fixture
def line(site: Site, tmp_path: Path) -> Line:
    return Line(site, tmp_path)


def test_to_list_keyrings_a_command_asks_four_things_and_writes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Operation[Any, Any]] = []
    submit = Requests.submit

    def noting(
        requests: Requests, now: float, issued_at: float, operation: Operation[Any, Any], *rest: Any, **more: Any
    ) -> Any:
        asked.append(operation)
        return submit(requests, now, issued_at, operation, *rest, **more)

    monkeypatch.setattr(Requests, "submit", noting)
    monkeypatch.setenv("LNH_CONFIG", str(site.directory))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("LNH_ADMIN_PASSWORD_FILE", raising=False)
    told = CliRunner().invoke(tree(), ["keyring", "list"])
    assert (told.exit_code, "payments" in told.output) == (0, True), told.output
    assert [each.name for each in asked] == [each.name for each in (HELLO, LOGIN, ENDPOINTS, KEYRING_LIST)]
    assert {each.effect for each in asked} == {Effect.READ}


def test_a_closed_standard_stream_is_named_where_it_is_used_and_nowhere_else(line: Line) -> None:
    line.run("lnh key generate closed")
    (line.place / "data").write_bytes(b"data")
    for asked, said in (
        ("lnh sign closed <&-", "standard input is closed"),
        ("lnh digest <&-", "standard input is closed"),
        ("lnh key list >&-", "standard output is closed"),
        ("lnh random 8 >&-", "standard output is closed"),
    ):
        assert said in line.run(asked, 1)
    for asked in ("lnh sign closed data -o sig <&- >&-", "lnh key list 2>&-", "lnh random 8 -o out <&- >&- 2>&-"):
        line.run(asked)
    assert (line.place / "sig").stat().st_size == 64
    assert (line.place / "out").stat().st_size == 8
    line.run("lnh key delete closed --yes <&-")


def test_a_label_that_looks_like_a_handle_is_found_by_it(line: Line) -> None:
    label = uuid.uuid4().hex
    made = line.run(f"lnh key generate {label} --type AES")
    handle = made.split()[-1]
    assert label in line.run(f"lnh key show {label}")
    assert handle in line.run(f"lnh key show label:{label}")
    assert label in line.run(f"lnh key show {handle}")
    assert label in line.run(f"lnh key show handle:{handle}")
    line.run(f"lnh key show handle:{label}", 1)
    line.run(f"lnh key generate {handle} --type AES")
    assert "label of" in line.run(f"lnh key show {handle}", 1)
    line.run(f"lnh key delete label:{handle} --yes")
    line.run(f"lnh key delete {label} --yes")


def test_options_that_a_kind_of_key_has_not_are_refused_by_name(line: Line) -> None:
    for options in ("-t AES --curve P-256", "-t EC --bits 256 --total 2", "-t EC --parameter-set ML-DSA-44"):
        refused = line.run(f"lnh key generate no-such-key {options}", None)
        assert refused.startswith("refused: "), refused
    assert "no-such-key" not in line.run("lnh key list")


@pytest.mark.parametrize("contents", ["\ufeff" + KRCO + "\r\n", KRCO + "\r\n", KRCO])
def test_a_password_file_of_another_platform_is_read(line: Line, contents: str) -> None:
    (line.place / "krco").write_bytes(contents.encode())
    for encoding in ("utf-8", "latin-1", "ascii"):
        assert len(line.run("lnh random 8 --hex", PYTHONIOENCODING=encoding, PYTHONUTF8="0").strip()) == 16


def test_odd_surroundings_are_no_bug(line: Line, site: Site) -> None:
    line.run("lnh key generate 'straße'")
    for encoding in ("ascii", "latin-1", "utf-8"):
        assert "stra" in line.run("lnh key list", PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C")
    assert "straße" in line.run("lnh key list")
    line.run("lnh key delete 'straße' --yes")
    kept = line.place / "read-only"
    shutil.copytree(site.directory, kept)
    (kept / "client.toml").write_bytes(b"\xef\xbb\xbf" + (kept / "client.toml").read_bytes().replace(b"\n", b"\r\n"))
    for path in kept.glob("*.epoch"):
        path.unlink()  # as if all that were known were older
    kept.chmod(0o500)
    try:
        assert len(line.run("lnh random 8 --hex", LNH_CONFIG=str(kept)).strip()) == 16
    finally:
        kept.chmod(0o700)


# --- many tasks on one connection


@asynccontextmanager
async def aio_session(site: Site) -> AsyncIterator[lnh.aio.KeyringSession]:
    async with lnh.aio.connect("prod", directory=site.directory, timeout=30) as cluster:
        keyring = await cluster.keyring("payments")
        async with await keyring.login(lnh.Role.KRCO, KRCO) as session:
            yield session


def test_the_asyncio_example_of_the_readme_works_as_it_stands(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = (
        part.partition("```")[0] for part in readme.split("```python\n") if "lnh.aio" in part.partition("```")[0]
    )
    (tmp_path / "krco").write_text(KRCO + "\n")
    monkeypatch.setenv("LNH_CONFIG", str(site.directory))
    monkeypatch.setenv("LNH_KRCO_PASSWORD_FILE", str(tmp_path / "krco"))
    names: dict[str, Any] = {}
    exec(example.replace('"demo"', '"prod"'), names)  # the README's own lines
    assert len(set(names["signatures"])) == 200


def test_tasks_that_are_cancelled_at_any_moment_harm_no_other(site: Site) -> None:
    chance = random.Random(os.urandom(8).hex())

    async def outcome_of(work: Awaitable[object]) -> object:
        """What a task ends with; `gather` makes a cancellation of its own, without the cause."""
        try:
            return await work
        except asyncio.CancelledError as error:
            return error

    async def work() -> None:
        async with aio_session(site) as session:
            loop = asyncio.get_running_loop()
            public, private = await session.generate_keypair(lnh.KeyType.EC, curve="P-256", token=False)
            signs = [asyncio.create_task(outcome_of(private.sign(b"%d" % number))) for number in range(200)]
            makes = [
                asyncio.create_task(outcome_of(session.generate_key(lnh.KeyType.AES, label=f"cancelled {number}")))
                for number in range(40)
            ]
            for task in (*chance.sample(signs, 60), *chance.sample(makes, 20)):
                loop.call_later(chance.random() * 0.2, task.cancel)
            signatures = await asyncio.gather(*signs)
            made = await asyncio.gather(*makes)
            for number, signature in enumerate(signatures):
                if isinstance(signature, bytes):
                    assert await public.verify(b"%d" % number, signature)
                else:
                    assert isinstance(signature, asyncio.CancelledError)
            for number, key in enumerate(made):
                there = [one async for one in session.find(label=f"cancelled {number}")]
                if isinstance(key, lnh.aio.SecretKey):
                    assert there == [key]
                else:
                    assert isinstance(key, asyncio.CancelledError)
                    may_be = isinstance(key.__cause__, lnh.OutcomeUnknown)
                    assert len(there) <= may_be, "what was never sent, or of which nothing is said, was not done"
                for one in there:
                    await one.destroy()

    asyncio.run(work())


def test_a_cluster_is_listed_and_administered_from_a_loop(site: Site) -> None:
    async def work() -> None:
        async with lnh.aio.connect("prod", directory=site.directory) as cluster:
            assert "payments" in [keyring.label async for keyring in cluster.keyrings()]
            async with await lnh.aio.admin.login(cluster.connection, "admin", lambda: ADMIN) as administration:
                assert (await administration.client("web-1")).name == "web-1"
                assert (await administration.keyring("payments")).label == "payments"
                lines = [line async for line in administration.export_audit()]
                assert lines
        guest = lnh.aio.admin.connect(site.address, "admin", ADMIN, fingerprint=site.fingerprint)
        async with await guest as administration:
            assert (await administration.show()).label == "prod"
            assert (await administration.backups.list()).archives == ()
        with pytest.raises(lnh.FingerprintMismatch):
            await lnh.aio.admin.connect(site.address, "admin", ADMIN, fingerprint="SHA256:other")

    asyncio.run(work())


def test_a_long_file_goes_through_a_loop_in_parts(site: Site, tmp_path: Path) -> None:
    data = os.urandom(MOST + 12345)
    (tmp_path / "clear").write_bytes(data)

    async def work() -> None:
        async with aio_session(site) as session:
            key = await session.generate_key(lnh.KeyType.AES, token=False)
            await key.encrypt_file(tmp_path / "clear", tmp_path / "sealed")
            others = [key.encrypt(b"meanwhile") for _ in range(20)]
            await asyncio.gather(key.decrypt_file(tmp_path / "sealed", tmp_path / "back"), *others)
            assert (tmp_path / "back").read_bytes() == data

    asyncio.run(work())


@pytest.fixture(scope="module")
def gateway(site: Site) -> Iterator[Path]:
    """The socket of a PKCS#11 gateway of this client."""
    path = site.directory.parent / "pkcs11" / "gateway.sock"
    command = [sys.executable, "-m", "lnh_cli.main", "pkcs11", "serve", "--socket", str(path)]
    environment = {**os.environ, "LNH_CONFIG": str(site.directory)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"serves {path}\n"
            yield path
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert not path.exists()


def test_applications_use_keyrings_through_the_gateway(site: Site, session: lnh.KeyringSession, gateway: Path) -> None:
    assert gateway.stat().st_mode & 0o777 == 0o600
    public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="gateway")
    for way in Way:
        program = SocketProgram(gateway, way)
        (slot,) = program.call("GetSlotList", 1, 10)
        theirs = program.call("OpenSession", slot, 4)
        program.call("FindObjectsInit", theirs, {Attribute.LABEL: b"gateway"})
        assert program.call("FindObjects", theirs, 10) == [], "nobody has logged in"
        program.call("FindObjectsFinal", theirs)
        program.call("Login", theirs, 1, KRCO.encode())
        program.call("FindObjectsInit", theirs, {Attribute.LABEL: b"gateway", Attribute.CLASS: 3})
        (key,) = program.call("FindObjects", theirs, 10)
        program.call("SignInit", theirs, M.ECDSA, key)
        digest = os.urandom(32)
        assert public.verify(digest, program.call("Sign", theirs, digest, 64), M.ECDSA)
        program.socket.close()
    private.destroy()
    public.destroy()


def test_a_second_gateway_does_not_take_the_socket(site: Site, gateway: Path) -> None:
    done = Forked(("lnh", "pkcs11", "serve", "--socket", str(gateway)), {"LNH_CONFIG": str(site.directory)}).wait()
    assert done.code == 1
    assert "another gateway serves" in done.err
    SocketProgram(gateway)


@pytest.mark.skipif(p11_kit_client() is None, reason="p11-kit's client is not installed")
def test_a_program_uses_the_gateway_through_p11_kit(session: lnh.KeyringSession, gateway: Path) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="through p11-kit")
    program = (
        "import sys, pkcs11\n"
        "from pkcs11 import Attribute, Mechanism, ObjectClass\n"
        "token = pkcs11.lib(sys.argv[1]).get_token(token_label='payments')\n"
        "with token.open(rw=True, user_pin=sys.argv[2]) as session:\n"
        "    named = {Attribute.LABEL: 'through p11-kit', Attribute.CLASS: ObjectClass.PRIVATE_KEY}\n"
        "    (key,) = session.get_objects(named)\n"
        "    print(key.sign(bytes(32), mechanism=Mechanism.ECDSA).hex())\n"
    )
    environment = {**os.environ, "P11_KIT_SERVER_ADDRESS": f"unix:path={gateway}"}
    command = [sys.executable, "-c", program, str(p11_kit_client()), KRCO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert public.verify(bytes(32), bytes.fromhex(done.stdout), M.ECDSA)
    private.destroy()
    public.destroy()
