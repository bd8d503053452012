"""The SDK and the command line against a real member: processes, sockets, disk."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from typer.testing import CliRunner

import failed
import lnh
import lnh.net.connection
import softhsm
from lnh import admin
from lnh.cluster import connect_to
from lnh.console import Console
from lnh.objects.as_cryptography import sign_with
from lnh.registration import hello
from lnh_cli.demo.processes import standing_still
from lnh_cli.main import tree
from lnh_common import limits
from lnh_common.bus.blocking import Caller
from lnh_common.bus.curve import KeyPair
from lnh_common.messages import store
from lnh_common.messages.admin import USER_DELETE, UserRef
from lnh_common.messages.base import Empty
from lnh_common.messages.objects import GENERATE, SessionObject
from lnh_common.messages.session import RENEW
from lnh_common.pkcs11.attributes import to_wire
from lnh_services.hsm.records import TABLES, TriedRecord
from processes import Processes
from sites import ADMIN, KRCO, KRSO, PO, SO, Shell, Site, build
from waits import wait_until


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with failed.directory() as root, Processes() as processes:
        yield build(processes, root)


@pytest.fixture
def session(site: Site) -> Iterator[lnh.KeyringSession]:
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        yield session


def test_the_example_of_the_readme_works_as_it_stands(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0].replace('"demo"', '"prod"')
    (tmp_path / "krco").write_text(KRCO + "\n")
    monkeypatch.setenv("LNH_CONFIG", str(site.directory))
    monkeypatch.setenv("LNH_KRCO_PASSWORD_FILE", str(tmp_path / "krco"))
    for _ in range(2):
        names: dict[str, Any] = {}
        exec(example, names)  # the README's own lines
        assert names["key"] == names["private"]
        assert len(names["signatures"]) == 2


class Page:
    """A page of docs whose lines are typed one after another, in a directory of their own."""

    def __init__(self, site: Site, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = (Path(__file__).parents[2] / "docs" / name).read_text()
        self.lines = re.findall(r"^    ((?:lnh|openssl) .+)$", page, re.MULTILINE)
        passwords = {"ADMIN": ADMIN, "PO": PO, "SO": SO, "KRSO": KRSO, "KRCO": KRCO}
        for role, password in passwords.items():
            (place / role.lower()).write_text(password + "\n")
            monkeypatch.setenv(f"LNH_{role}_PASSWORD_FILE", str(place / role.lower()))
        for variable, value in (
            ("LNH_CONFIG", site.directory),
            ("LNH_KEYRING", "payments"),
            ("XDG_RUNTIME_DIR", place),
        ):
            monkeypatch.setenv(variable, str(value))
        monkeypatch.chdir(place)
        (place / "program").write_bytes(b"what is signed")
        self._runner, self._commands = CliRunner(), tree()

    def type(self, line: str) -> Any:
        return self._runner.invoke(self._commands, shlex.split(line)[1:])

    def type_all(self) -> None:
        for line in ["lnh role login", *self.lines, "lnh role logout"]:
            if line.startswith("lnh "):
                told = self.type(line)
                assert told.exit_code == 0, f"{line}: {told.output}"
            else:
                done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=60, check=False)
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command on this machine")
def test_the_page_about_certificates_works_as_it_stands(
    site: Site, session: lnh.KeyringSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = set(session.find())
    page = Page(site, "certificates.md", tmp_path, monkeypatch)
    (tmp_path / "passphrase").write_text("of these files\n")
    assert len(page.lines) > 20
    page.type_all()
    told = page.type("lnh certificate verify web.pem --root root.pem --intermediate issuing.pem --crl=issuing.crl")
    assert (told.exit_code, "was revoked" in told.stderr) == (1, True), told.output
    for each in set(session.find(current=True)) - before:
        each.destroy()


def test_the_page_about_keys_works_as_it_stands(
    site: Site, session: lnh.KeyringSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = set(session.find())
    page = Page(site, "keys.md", tmp_path, monkeypatch)
    (tmp_path / "first").write_text("a first password\n")
    (tmp_path / "film").write_bytes(os.urandom(3 * limits.MIB + 5))
    assert len(page.lines) > 25
    page.type_all()
    for made in ("program.again", "program.plain", "program.received", "program.after"):
        assert (tmp_path / made).read_bytes() == b"what is signed"
    assert (tmp_path / "film.decrypted").read_bytes() == (tmp_path / "film").read_bytes()
    told = page.type("lnh keyring delete vault --yes")
    assert told.exit_code == 0, told.output
    for each in set(session.find(current=True)) - before:
        each.destroy()


@pytest.mark.skipif(bool(softhsm.MISSING), reason=softhsm.MISSING)
def test_a_token_of_other_software_is_migrated_by_command_wherever_a_run_is_killed(
    site: Site, session: lnh.KeyringSession, shell: Shell, tmp_path: Path
) -> None:
    import pkcs11
    from pkcs11 import Attribute, KeyType

    token = softhsm.new_token()
    with softhsm.open_token(token) as theirs:
        p256 = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
        curve = theirs.create_domain_parameters(KeyType.EC, p256, local=True)
        leaves = {Attribute.EXTRACTABLE: True}
        curve.generate_keypair(store=True, label="moved", id=b"\1", private_template=leaves)
        curve.generate_keypair(store=True, label="stuck", id=b"\2")
        for number in range(3):
            theirs.generate_key(KeyType.AES, 256, store=True, label=f"moved{number}", template=leaves)
    (shell.place / "pin").write_text(softhsm.PIN)
    journal = tmp_path / "journal"
    words = ["migrate", "--module", softhsm.MODULE, "--token", token, "-k", "payments", "--pin-file", "pin"]
    words += ["--journal", str(journal), "--json"]
    before = set(session.find(current=True))
    planned = json.loads(shell.run(*words, "--dry-run"))
    counts = {"copied": 1, "new key": 1, "stays": 1, "wrapped": 4}
    assert planned["counts"] == counts
    assert set(session.find(current=True)) == before
    with shell.begun(*words, "--yes") as run:
        wait_until(lambda: journal.exists() or run.poll() is not None, "the first object")
        run.kill()
    told = json.loads(shell.run(*words, "--yes"))
    made = set(session.find(current=True)) - before
    assert sorted((each.object_class.name, each.label) for each in made) == [
        ("PRIVATE_KEY", "moved"),
        ("PRIVATE_KEY", "stuck"),
        ("PUBLIC_KEY", "moved"),
        ("PUBLIC_KEY", "stuck"),
        *(("SECRET_KEY", f"moved{number}") for number in range(3)),
    ]
    assert {each["handle"] for each in told["objects"]} - {""} <= {each.handle.hex() for each in made}
    again = json.loads(shell.run(*words, "--yes"))
    assert again["counts"] == {"stays": 1, "there already": 6}
    private = session.get_key(label="moved", object_class=lnh.ObjectClass.PRIVATE_KEY)
    assert isinstance(private, lnh.PrivateKey)
    with softhsm.open_token(token) as theirs:
        public = theirs.get_key(label="moved", object_class=pkcs11.ObjectClass.PUBLIC_KEY)
        signature = private.sign(bytes(32), lnh.Mechanism.ECDSA)
        assert public.verify(bytes(32), signature, mechanism=pkcs11.Mechanism.ECDSA)
    for each in made:
        each.destroy()


def test_keys_are_found_by_what_they_are(session: lnh.KeyringSession) -> None:
    _, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="found")
    assert session.get_key(label="found") == private
    assert private in list(session.find(key_type=lnh.KeyType.EC))
    session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="found")
    with pytest.raises(lnh.LimitReached, match="2 keys"):
        session.get_key(label="found")


def test_keys_are_listed_in_the_order_in_which_they_were_asked_for(session: lnh.KeyringSession) -> None:
    made: list[bytes] = []
    for _ in range(2):
        made += [half.handle for half in session.generate_keypair(lnh.KeyType.EC, id=b"in order")]
        made += [key.handle for key in session.generate_keys(10, lnh.KeyType.AES, id=b"in order")]
    template = {lnh.Attribute.VALUE_LEN.value: 32, lnh.Attribute.ID.value: b"in order"}
    asked = [(GENERATE, {"mechanism": lnh.Mechanism.AES_KEY_GEN.value, "template": template})] * 20
    made += [view["handle"] for view in session.call_each(asked, in_flight=20)]
    found = list(session.find(id=b"in order"))
    assert [each.handle for each in found] == made
    for each in found:
        each.destroy()


def test_ecdsa_signatures_verify_with_an_independent_library(session: lnh.KeyringSession) -> None:
    for curve, hash_ in (("P-256", hashes.SHA256()), ("P-384", hashes.SHA384()), ("P-521", hashes.SHA512())):
        public, private = session.generate_keypair(lnh.KeyType.EC, curve=curve)
        independent = public.as_cryptography()
        assert isinstance(independent, ec.EllipticCurvePublicKey)
        independent.verify(private.sign(b"data", der=True), b"data", ec.ECDSA(hash_))
        assert public.verify(b"data", private.sign(b"data", der=True), der=True)
        assert not public.verify(b"other", private.sign(b"data"))
        assert not public.verify(b"data", b"nonsense", der=True)


def test_eddsa_and_rsa_signatures_verify_with_an_independent_library(session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS)
    independent = public.as_cryptography()
    assert isinstance(independent, ed25519.Ed25519PublicKey)
    independent.verify(private.sign(b"data"), b"data")
    public, private = session.generate_keypair(lnh.KeyType.RSA, 2048, timeout=60)
    of_rsa = public.as_cryptography()
    assert isinstance(of_rsa, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    of_rsa.verify(private.sign(b"data"), b"data", pss, hashes.SHA256())
    signature = private.sign(b"data", lnh.Mechanism.SHA256_RSA_PKCS)
    of_rsa.verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    assert private.decrypt(public.encrypt(b"a secret")) == b"a secret"


def test_a_key_with_token_false_lives_in_its_session_only(site: Site, session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="mine", token=False)
    independent = public.as_cryptography()
    assert isinstance(independent, ec.EllipticCurvePublicKey)
    independent.verify(private.sign(b"data", der=True), b"data", ec.ECDSA(hashes.SHA256()))
    assert [public.verify(b"a", one) for one in private.sign_many([b"a", b"b"])] == [True, False]
    signed = private.sign_many([b"a", b"b", b"c"])
    assert public.verify_many([b"a", b"b", b"x"], [signed[0], bytes(64 << 10), signed[2]]) == [True, False, False]
    assert list(private.sign_each([b"a"])) != []
    key = session.generate_key(lnh.KeyType.AES, label="mine", token=False)
    key.refresh()
    assert key.decrypt(key.encrypt(b"a secret")) == b"a secret"
    assert set(session.find(label="mine")) == set(session.find(token=False)) == {public, private, key}
    assert session.get_key(label="mine", key_type=lnh.KeyType.EC) is private
    assert session.get_object(key.handle) is key
    with pytest.raises(lnh.ActionProhibited):
        key.set_attributes(label="other")
    with pytest.raises(lnh.TemplateInconsistent):
        session.generate_keypair(lnh.KeyType.EC, public={lnh.Attribute.TOKEN: False})
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as other:
        assert list(other.find(label="mine")) == []
        stolen = SessionObject(
            handle=private.handle, version=1, attributes=to_wire(private.attributes), sealed=private.sealed
        )
        theirs = lnh.PrivateKey(other, stolen)
        with pytest.raises(lnh.ObjectUnknown):
            theirs.sign(b"data")
    key.destroy()
    assert set(session.find(label="mine")) == {public, private}
    for use in (key.destroy, key.refresh, lambda: key.encrypt(b"a secret")):
        with pytest.raises(lnh.ObjectUnknown):
            use()
    session.logout()
    with pytest.raises(lnh.TokenUnknown):
        private.sign(b"data")
    assert list(session.find(token=False)) == []


def test_certificates_are_signed_by_keys_in_the_cluster(session: lnh.KeyringSession) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    now = dt.datetime.now(dt.timezone.utc)
    kinds: list[tuple[lnh.KeyType, int | None, hashes.SHA256 | None]] = [
        (lnh.KeyType.EC, None, hashes.SHA256()),
        (lnh.KeyType.RSA, 2048, hashes.SHA256()),
        (lnh.KeyType.EC_EDWARDS, None, None),
    ]
    for key_type, bits, hash_ in kinds:
        _, private = session.generate_keypair(key_type, bits, timeout=60)
        wrapped = sign_with(private)
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=wrapped.public_key(),
            serial_number=1,
            not_valid_before=now,
            not_valid_after=now + dt.timedelta(days=1),
        )
        certificate = builder.sign(wrapped, hash_)
        certificate.verify_directly_issued_by(certificate)
        with pytest.raises(lnh.AttributeSensitive):
            wrapped.private_bytes()
    _, private = session.generate_keypair(lnh.KeyType.RSA, 2048, timeout=60)
    of_rsa = private.as_cryptography()
    assert isinstance(of_rsa, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    of_rsa.public_key().verify(of_rsa.sign(b"data", pss, hashes.SHA256()), b"data", pss, hashes.SHA256())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert of_rsa.decrypt(of_rsa.public_key().encrypt(b"secret", oaep), oaep) == b"secret"


def test_data_longer_than_a_message_is_hashed_by_the_client(session: lnh.KeyringSession, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    public, private = session.generate_keypair(lnh.KeyType.EC)
    independent = public.as_cryptography()
    assert isinstance(independent, ec.EllipticCurvePublicKey)
    independent.verify(private.sign(data, der=True), data, ec.ECDSA(hashes.SHA256()))
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        assert public.verify(data, private.sign(file))
    _, edwards = session.generate_keypair(lnh.KeyType.EC_EDWARDS)
    with pytest.raises(lnh.DataLength):
        edwards.sign(data)


def test_files_of_any_length_are_encrypted_and_signed_in_the_hsm(session: lnh.KeyringSession, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    key = session.generate_key(lnh.KeyType.AES, 256)
    for _ in range(2):  # whichever of its workers it comes to
        key.encrypt_file(tmp_path / "data", tmp_path / "box")
        key.decrypt_file(tmp_path / "box", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
    tags = session.generate_key(lnh.KeyType.GENERIC_SECRET, 256)
    assert tags.verify_file(tmp_path / "data", tags.sign_file(tmp_path / "data"))
    assert session.digest(data) == hashlib.sha256(data).digest()


def test_secret_keys_encrypt_and_make_tags(session: lnh.KeyringSession) -> None:
    key = session.generate_key(lnh.KeyType.AES, 256, label="aes")
    boxes = key.encrypt_many([b"", b"x" * 5000, *[b"small"] * 1100])
    assert len({box.iv for box in boxes}) == len(boxes)
    assert key.decrypt(boxes[1]) == b"x" * 5000
    opened = key.decrypt_many([*boxes[:2], b"none"], return_errors=True)
    assert opened[:2] == [b"", b"x" * 5000]
    assert isinstance(opened[2], lnh.errors.EncryptedDataInvalid)
    assert key.decrypt_many(boxes)[-1] == b"small"
    encrypted = key.encrypt(b"plaintext", parameters=lnh.GcmParameters(aad=b"about"))
    assert len(encrypted) == 12 + 9 + 16
    assert len(encrypted.iv) == 12
    assert key.decrypt(encrypted, parameters=lnh.GcmParameters(aad=b"about")) == b"plaintext"
    with pytest.raises(lnh.EncryptedDataInvalid):
        key.decrypt(encrypted)
    with pytest.raises(lnh.EncryptedDataInvalid):
        key.decrypt(b"short")
    mac = session.generate_key(lnh.KeyType.GENERIC_SECRET, 256, label="mac")
    assert mac.verify(b"data", mac.sign(b"data"))
    assert not mac.verify(b"other", mac.sign(b"data"))
    with pytest.raises(lnh.KeyFunctionNotPermitted):
        key.sign(b"data", lnh.Mechanism.AES_CMAC)


def test_keys_come_out_of_keys_and_are_the_same_ones(session: lnh.KeyringSession) -> None:
    kek = session.generate_key(lnh.KeyType.AES, label="kek", wrap=True, unwrap=True)
    inner = session.generate_key(lnh.KeyType.AES, label="inner", extractable=True)
    back = kek.unwrap(kek.wrap(inner), lnh.ObjectClass.SECRET_KEY, lnh.KeyType.AES, token=False)
    assert isinstance(back, lnh.SecretKey)
    assert back.decrypt(inner.encrypt(b"data")) == b"data"
    assert inner.copy(label="copy").attributes[lnh.Attribute.CHECK_VALUE] == inner[lnh.Attribute.CHECK_VALUE]
    pairs = [session.generate_keypair(lnh.KeyType.EC_MONTGOMERY, curve="X25519", token=False) for _ in range(2)]
    points = [bytes(public[lnh.Attribute.EC_POINT]) for public, _ in pairs]  # type: ignore[arg-type]  # it is bytes
    agreed = [
        private.derive(lnh.KeyType.AES, parameters=lnh.EcdhParameters(public_key=point, kdf=lnh.Kdf.HKDF), token=False)
        for (_, private), point in zip(pairs, reversed(points), strict=True)
    ]
    assert agreed[0].decrypt(agreed[1].encrypt(b"data")) == b"data"
    public, private = session.generate_keypair(lnh.KeyType.ML_KEM, label="kem")
    mine, ciphertext = public.encapsulate(lnh.KeyType.GENERIC_SECRET, token=False)
    theirs = private.decapsulate(ciphertext, lnh.KeyType.GENERIC_SECRET, token=False)
    parameters = lnh.HkdfParameters(info=b"both")
    keys = [one.derive(lnh.KeyType.CHACHA20, parameters=parameters, token=False) for one in (mine, theirs)]
    assert keys[0].decrypt(keys[1].encrypt(b"data")) == b"data"
    with pytest.raises(lnh.KeyUnextractable):
        kek.wrap(kek)
    for one in (kek, inner, session.get_key(label="copy"), public, private):
        one.destroy()


def test_many_signatures_come_in_order_whichever_way_they_are_asked_for(session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS)
    independent = public.as_cryptography()
    assert isinstance(independent, ed25519.Ed25519PublicKey)
    messages = [number.to_bytes(4, "big") for number in range(1500)]
    for signatures in (private.sign_many(messages), list(private.sign_each(messages, in_flight=32))):
        assert len(signatures) == len(messages)
        for message, signature in zip(messages, signatures, strict=True):
            independent.verify(signature, message)


def test_one_connection_serves_many_threads(session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS)
    independent = public.as_cryptography()
    assert isinstance(independent, ed25519.Ed25519PublicKey)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                data = f"{number} {turn}".encode()
                independent.verify(private.sign(data), data)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_objects_are_found_changed_and_destroyed(session: lnh.KeyringSession) -> None:
    key = session.generate_key(lnh.KeyType.AES, 128, label="old name", id=b"\x01")
    assert (key.label, key.id, key.key_type) == ("old name", b"\x01", lnh.KeyType.AES)
    key.set_attributes(label="new name")
    assert session.get_key(label="new name") == key
    with pytest.raises(lnh.AttributeReadOnly):
        key.set_attributes(key_type=lnh.KeyType.RSA)
    with pytest.raises(lnh.AttributeInvalid):
        key.set_attributes(nonsense=1)
    key.destroy()
    with pytest.raises(lnh.ObjectUnknown):
        session.get_key(label="new name")
    with pytest.raises(lnh.ObjectUnknown):
        key.encrypt(b"data")


def test_wrong_passwords_and_unknown_keyrings_are_refused(site: Site) -> None:
    with site.connect() as cluster:
        with pytest.raises(lnh.KeyringUnknown):
            cluster.keyring("nonsense")
        with pytest.raises(lnh.PasswordIncorrect):
            cluster.keyring("payments").login(lnh.Role.KRCO, "wrong password")
        with pytest.raises(lnh.ArgumentInvalid):
            cluster.keyring("payments").login(lnh.Role.PO, PO)
        assert [keyring.label for keyring in cluster.keyrings()] == ["payments"]


def test_a_client_at_its_bound_of_names_is_told_the_same_of_each_and_still_gets_in(site: Site, tmp_path: Path) -> None:
    other = lnh.Configuration(tmp_path / "other")
    registration = lnh.register(other, site.address, "names", "admin", lambda: ADMIN, wanted=site.fingerprint)
    client = registration.client
    tried = store.Count(table=TABLES[TriedRecord], scope=client)
    # What a sweep meanwhile takes of them leaves more than enough; nobody but the store looks into them here.
    many = tuple(
        store.Put(key=store.Key(table=tried.table, scope=client, id=number.to_bytes(3, "big")), expected=0, head=b"")
        for number in range(4 * limits.NAMES_TRIED - 1)
    )
    fill = store.Commit(client=client, session=client, sequence=1, issued_at=int(time.time() * 1000), changes=many)
    with connect_to(other, registration) as cluster, Caller(site.member.directory.store_for_hsm) as worker:
        keyring = cluster.keyring("payments")
        keyring.login(lnh.Role.KRCO, KRCO).logout()
        assert worker.ask(store.COUNT, tried).count == 0
        with pytest.raises(lnh.PasswordIncorrect):
            admin.login(cluster.connection, "nobody", "wrong password")
        assert worker.ask(store.COUNT, tried).count == 1
        worker.ask(store.COMMIT, fill)
        told = []
        for name in ("admin", "nobody else", "watcher"):
            with pytest.raises(lnh.PasswordLocked) as refused:
                admin.login(cluster.connection, name, ADMIN)
            told.append((str(refused.value), refused.value.detail["seconds"]))
        assert len(set(told)) == 1
        with pytest.raises(lnh.PasswordIncorrect):
            admin.login(cluster.connection, "nobody", "wrong password")
        keyring.login(lnh.Role.KRCO, KRCO).logout()
    with admin.connect(site.address, "admin", ADMIN, fingerprint=site.fingerprint) as session:
        session.revoke_client("names")


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        ("lnh_services.balancer", r"session.login: no answer within 2 s; sent once, .* last heard from there: \d"),
        ("hsm.worker", r"worker-\d has had it for [12]\.\d s without an answer; it last answered anything \d"),
        ("hsm.crypto.argon2", r"argon2.derive was not answered in time by the argon2, asked 1 times"),
        ("lnh_services.store", r"store\.\w+ was not answered in time by the store, asked [12] times"),
    ],
)
def test_a_login_that_nobody_answers_says_where_it_was_lost(site: Site, part: str, lost: str) -> None:
    with site.connect() as cluster:
        keyring = cluster.keyring("payments")
        keyring.login(lnh.Role.KRCO, KRCO).logout()
    with site.connect(timeout=2.0) as cluster:
        keyring = cluster.keyring("payments")
        cluster.connection.statement()  # what precedes a login, and would be lost as well
        with standing_still(site.member.directory.root, part=part) as still:
            assert still
            said = []
            for _ in range(3):  # who passes it on has 50 ms to say so; without a processor for it, the client is first
                with pytest.raises(lnh.DeadlineExceeded) as refused:
                    keyring.login(lnh.Role.KRCO, KRCO)
                said.append(str(refused.value))
                if re.search(lost, said[-1]):
                    break
            assert re.search(lost, said[-1]), said
    wait_until(site.member.is_ready, "the member as it was")
    with site.connect(timeout=30) as cluster:
        cluster.keyring("payments").login(lnh.Role.KRCO, KRCO).logout()


def test_more_right_logins_at_once_than_wrong_ones_are_allowed_all_succeed(site: Site) -> None:
    failures: list[Exception] = []
    with site.connect(timeout=60) as cluster:
        keyring = cluster.keyring("payments")

        def log_in() -> None:
            try:
                assert len(keyring.login(lnh.Role.KRCO, KRCO).random(8)) == 8
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=log_in) for _ in range(limits.FAILURES_BEFORE_LOCK + 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
    assert failures == []


def test_a_session_is_renewed_with_the_same_secret_and_a_logged_out_one_is_dead(site: Site) -> None:
    with site.connect() as cluster:
        session = cluster.keyring("payments").login(lnh.Role.KRCO, KRCO)
        secret, before = session.saved()
        session._renew_at = 0.0
        session.random(8)
        again, after = session.saved()
        assert again == secret
        assert after.token != before.token
        assert after.session == before.session
        session.logout()
        with pytest.raises(lnh.SessionEnded):
            session.random(8)


def test_a_changed_identity_is_an_error_and_never_a_question(site: Site) -> None:
    registration = replace(site.configuration.registration(), identity=os.urandom(32))
    with connect_to(site.configuration, registration) as cluster, pytest.raises(lnh.ClusterIdentityChanged):
        list(cluster.keyrings())


def test_an_older_channel_epoch_than_one_seen_is_refused(site: Site) -> None:
    registration = site.configuration.registration()
    with connect_to(site.configuration, registration) as cluster:
        cluster.connection._epoch = 1 << 40
        with pytest.raises(lnh.ChannelInvalid, match="epoch"):
            list(cluster.keyrings())


def test_registration_checks_the_fingerprint_and_asks_only_without_one(site: Site, tmp_path: Path) -> None:
    other = lnh.Configuration(tmp_path / "other")
    asked: list[str] = []

    def say_no(label: str, fingerprint: str) -> bool:
        asked.append(f"{label} {fingerprint}")
        return False

    def never() -> str:
        raise AssertionError("no password before the fingerprint is checked")

    with pytest.raises(lnh.FingerprintMismatch):
        lnh.register(other, site.address, "web-2", "admin", never, wanted="SHA256:" + "A" * 43)
    with pytest.raises(lnh.FingerprintMismatch):
        lnh.register(other, site.address, "web-2", "admin", never, confirm=say_no)
    assert asked == [f"prod {site.fingerprint}"]
    with pytest.raises(lnh.PasswordIncorrect):
        lnh.register(other, site.address, "web-2", "admin", lambda: "wrong password", wanted=site.fingerprint)
    assert other.registrations() == []


def never() -> str:
    raise AssertionError("no password is asked for")


def test_registering_again_changes_the_member_and_asks_for_no_password(site: Site) -> None:
    before = site.configuration.registration()
    assert lnh.register(site.configuration, site.address, "", "admin", never) == before
    known: dict[str, Any] = {"wanted": site.fingerprint, "cluster": before.cluster, "index": before.index}
    assert lnh.register(site.configuration, site.address, before.name, "admin", never, **known) == before


@pytest.mark.parametrize(
    ("given", "name", "error"),
    [
        ({"wanted": "SHA256:" + "A" * 43}, "", lnh.FingerprintMismatch),
        ({"cluster": bytes(16)}, "", lnh.FingerprintMismatch),
        ({"monitor": "admin"}, "", lnh.ArgumentInvalid),
        ({}, "another", lnh.ArgumentInvalid),
        ({"index": 10}, "", lnh.ArgumentInvalid),
    ],
)
def test_what_is_given_when_registering_again_is_checked(
    site: Site, given: dict[str, Any], name: str, error: type[lnh.LnhError]
) -> None:
    before = site.configuration.registration()
    with pytest.raises(error):
        lnh.register(site.configuration, site.address, name, "admin", never, **given)
    assert site.configuration.registration() == before


def test_a_registration_moves_and_a_revoked_client_registers_again_in_one_command(site: Site, tmp_path: Path) -> None:
    other = lnh.Configuration(tmp_path / "other")
    first = lnh.register(other, site.address, "web-7", "admin", lambda: ADMIN, wanted=site.fingerprint)
    moved = lnh.register(other, site.address, "", "admin", never, index=4)
    assert other.registrations() == [moved]
    assert (moved.index, moved.client) == (4, first.client)
    with admin.connect(site.address, "admin", ADMIN, fingerprint=site.fingerprint) as session:
        session.revoke_client("web-7")
    with pytest.raises(lnh.PasswordIncorrect):
        lnh.register(other, site.address, "", "admin", lambda: "wrong password")
    assert other.registrations() == [moved]
    again = lnh.register(other, site.address, "", "admin", lambda: ADMIN)
    assert other.registrations() == [again]
    assert (again.index, again.name) == (4, "web-7-2")
    assert again.client != first.client
    assert not first.client_key.exists()
    with connect_to(other, again) as cluster:
        list(cluster.keyrings())


def test_an_unregistered_machine_administers_with_the_fingerprint(site: Site) -> None:
    with admin.connect(site.address, "admin", ADMIN, fingerprint=site.fingerprint) as session:
        session.add_user("watcher", "monitor", "password of watcher")
        assert ("watcher", "monitor") in [(user.name, user.role) for user in session.users()]
        assert session.show().label == "prod"
        with pytest.raises(lnh.PermissionDenied):
            session.create_keyrings("without the po")
        session.delete_user("watcher")
        renewed = session.ask(RENEW, Empty())
        again = admin.Administration(session.connection, session.saved()[0], renewed)
        assert again.show().label == "prod"
        session.logout()
        for ended in (session, again):
            with pytest.raises(lnh.SessionEnded):
                ended.users()
    assert hello(site.address).fingerprint == site.fingerprint


def test_a_member_that_is_not_there_is_unreachable_and_a_write_to_it_did_nothing(site: Site) -> None:
    registration = replace(site.configuration.registration(), member="127.0.0.1:9")
    with connect_to(site.configuration, registration, timeout=0.3) as cluster, pytest.raises(lnh.Unreachable):
        list(cluster.keyrings())


def test_a_call_in_flight_survives_the_death_of_the_balancer(site: Site, session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS)
    for _ in range(2):
        before = site.member.service("balancer")
        assert before.pid
        os.kill(before.pid, signal.SIGKILL)
        assert public.verify(b"data", private.sign(b"data"))  # each within its deadline
        made = session.generate_key(lnh.KeyType.AES)
        made.destroy()
    wait_until(site.member.is_ready, "the member as it was")


def test_a_revoked_client_is_told_so_under_seal_and_reaches_nothing(site: Site, tmp_path: Path) -> None:
    configuration = lnh.Configuration(tmp_path / "revoked")
    lnh.register(configuration, site.address, "revoked", "admin", lambda: ADMIN, wanted=site.fingerprint)
    with lnh.connect(directory=configuration.directory) as cluster:
        keyring = cluster.keyring("payments").login(lnh.Role.KRCO, KRCO)
        assert len(keyring.random(8)) == 8
        with site.connect() as own, admin.login(own.connection, "admin", ADMIN) as session:
            session.revoke_client("revoked")
        for _ in range(2):
            with pytest.raises(lnh.ClientRevoked):
                keyring.random(8)
        with pytest.raises(lnh.ClientRevoked):
            list(cluster.keyrings())
    with lnh.connect(directory=configuration.directory) as cluster, pytest.raises(lnh.ClientRevoked):
        list(cluster.keyrings())


def test_a_key_no_client_has_asks_no_keyring_operation_of_a_worker(site: Site, session: lnh.KeyringSession) -> None:
    secret, logged_in = session.saved()
    link = replace(session.connection.link, keys=KeyPair.generate())
    registration = site.configuration.registration()
    stranger = lnh.net.connection.Connection(link, registration.identity, registration.cluster)
    with stranger, pytest.raises(lnh.AnswerUnproven, match="ClientUnknown"):
        lnh.Session(stranger, secret, logged_in, route=session.route).random(8)
    assert len(session.random(8)) == 8


@pytest.fixture
def shell(site: Site, tmp_path: Path) -> Shell:
    for name, password in {"ADMIN": ADMIN, "PO": PO, "KRSO": KRSO, "KRCO": KRCO}.items():
        (tmp_path / name).write_text(password + "\n")
    return Shell(site, tmp_path)


def test_the_command_line_signs_and_openssl_verifies(shell: Shell) -> None:
    (shell.place / "data").write_bytes(b"data to sign")
    made = json.loads(shell.run("key", "generate", "cli", "-k", "payments", "--json"))
    assert [one["class"] for one in made] == ["PUBLIC_KEY", "PRIVATE_KEY"]
    shell.run("sign", "cli", "data", "-k", "payments", "--der", "-o", "data.sig")
    shell.run("key", "export", "cli", "-k", "payments", "-o", "cli.pem")
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "cli.pem", "-signature", "data.sig", "data"],
        cwd=shell.place,
        check=True,
        capture_output=True,
        timeout=20,
    )
    assert shell.run("verify", "cli", "data", "-k", "payments", "--der", "--signature", "data.sig") == "valid\n"
    wrong = ("verify", "cli", "ADMIN", "-k", "payments", "--der", "--signature", "data.sig")
    assert shell.run(*wrong, status=1).startswith("refused: ")
    shell.run("key", "delete", "cli", "-k", "payments", "--yes")
    assert "ObjectUnknown" not in shell.run("sign", "cli", "data", "-k", "payments", status=1)


def test_the_command_line_keeps_a_login_until_logout(shell: Shell) -> None:
    shell.run("role", "login", "-k", "payments")
    (shell.place / "KRCO").write_text("wrong password\n")
    assert len(shell.run("random", "16", "-k", "payments", "--hex").strip()) == 32
    kept = list((shell.place / "lnh").glob("*.session"))
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]
    assert KRCO.encode() not in kept[0].read_bytes()
    shell.run("role", "logout", "-k", "payments")
    assert shell.run("random", "16", "-k", "payments", status=1).startswith("refused: ")


def test_the_command_line_encrypts_and_decrypts(shell: Shell) -> None:
    shell.run("key", "generate", "cli aes", "-k", "payments", "-t", "aes", "-b", "128")
    many = json.loads(shell.run("key", "generate", "bulk", "-k", "payments", "-t", "aes", "--total", "103", "--json"))
    assert [one["label"] for one in many] == [f"bulk{number}" for number in range(1, 104)]
    shell.run("encrypt", "cli aes", "-k", "payments", "-o", "out", data=b"in the clear")
    assert len((shell.place / "out").read_bytes()) == 12 + 12 + 16
    assert shell.run("decrypt", "cli aes", "out", "-k", "payments") == "in the clear"
    shell.run("decrypt", "cli aes", "ADMIN", "-k", "payments", status=1)
    shell.run("encrypt", "cli aes", "-k", "payments", "-o", "bound", "--aad", "0a0b", data=b"bound")
    assert shell.run("decrypt", "cli aes", "bound", "-k", "payments", "--aad", "0A0B") == "bound"
    shell.run("decrypt", "cli aes", "bound", "-k", "payments", "--aad", "0a", status=1)
    (shell.place / "long").write_bytes(os.urandom(1_300_000))
    assert "-o FILE" in shell.run("encrypt", "cli aes", "long", "-k", "payments", status=2)
    shell.run("encrypt", "cli aes", "long", "-k", "payments", "-o", "long.box")
    shell.run("decrypt", "cli aes", "long.box", "-k", "payments", "-o", "long.out")
    assert (shell.place / "long.out").read_bytes() == (shell.place / "long").read_bytes()
    assert "takes no --label" in shell.run("encrypt", "cli aes", "-k", "payments", "--label", "00", data=b"", status=2)


def test_the_command_line_administers(shell: Shell) -> None:
    created = json.loads(shell.run("keyring", "create", "many", "--total", "3", "--json"))
    assert [one["label"] for one in created] == ["many1", "many2", "many3"]
    assert "many2" in shell.run("keyring", "list")
    for one in created:
        shell.run("keyring", "delete", one["label"], "--yes")
    assert "web-1" in [one["name"] for one in json.loads(shell.run("client", "list", "--json"))]
    roles = json.loads(shell.run("role", "list", "-k", "payments", "--json"))
    assert roles == [{"role": role, "state": "set", "locked": []} for role in ("krso", "krco")]
    status = json.loads(shell.run("status", "--json"))
    assert {one["name"] for one in status["services"]} >= {"hsm", "store", "balancer"}
    assert "prod" in shell.run("cluster", "show")
    assert "read-write" in shell.run("member", "list")


def test_the_command_line_measures(shell: Shell) -> None:
    figures = json.loads(shell.run("bench", "-k", "payments", "--seconds", "0.5", "--json"))
    assert figures["operations_per_second"] > 0
    assert len(figures["operations_per_second_windows"]) == 5
    assert figures["p50_us"] <= figures["p99_us"] <= figures["p99.9_us"]
    assert "lnh bench" not in shell.run("key", "list", "-k", "payments")


def test_each_use_of_a_key_has_its_record_where_the_policy_says_so(site: Site) -> None:
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRSO, KRSO) as session:
        public, private = session.generate_keypair(lnh.KeyType.EC)
        private.sign(b"counted")
        assert session.policy(per_use_audit=True)["per_use_audit"] is True
        signatures = [private.sign(b"recorded"), *private.sign_many([b"a", b"b"])]
        assert session.policy(per_use_audit=False, allowed_mechanisms=None)["allowed_mechanisms"] is None
        assert public.verify(b"recorded", signatures[0])
        handle = private.handle.hex()
    with Console(site.member.directory.root) as console:
        records = [each for each in console.audit() if each["target"].endswith(f"/{handle}")]
        uses = [each["operation"] for each in records if each["operation"] in ("key.sign", "key.sign-many")]
        assert uses == ["key.sign", "key.sign-many", "key.sign-many"]
        assert console.verify_audit().problem == ""


def test_refusals_that_repeat_do_not_fill_the_audit_trail(site: Site) -> None:
    refused = UserRef(name="nobody")
    with site.connect() as cluster:
        for _ in range(300):
            with pytest.raises(lnh.errors.PermissionDenied):
                cluster.client_session().ask(USER_DELETE, refused)
    with Console(site.member.directory.root) as console:
        records = [record for record in console.audit() if record["target"] == "nobody"]
        assert 1 <= len(records) <= 3, "one, and one with a count for each minute that began meanwhile"
        assert records[0]["outcome"] == "PermissionDenied"
        report = console.verify_audit()
    assert report.problem == ""


def test_what_others_wrote_does_nothing_to_a_terminal(shell: Shell, session: lnh.KeyringSession) -> None:
    forged = "forger\nforger-row  public  EC  P-256  verify  00000000000000000000000000000000"
    control = "forger\x1b]0;owned\x07\x9b31m\x1b[2J\u202e"
    made = [session.generate_key(lnh.KeyType.AES, label=label) for label in (forged, control)]
    try:
        assert session.get_key(label=control) == made[1], "a label is its user's own data"
        for arguments in (["list"], ["list", "--json"], ["show", made[1].handle.hex()], ["show", control]):
            for said in (shell.run("key", *arguments, "-k", "payments"), shell.on_terminal("key", *arguments)):
                assert "owned" in said
                assert not [line for line in said.splitlines() if line.startswith("forger-row")]
                assert not [each for each in ("\x1b]", "\x07", "\x9b", "\x1b[2J", "\u202e") if each in said]
    finally:
        for key in made:
            key.destroy()
    refused = (lnh.errors.MalformedMessage, lnh.ArgumentInvalid)  # by the member, or before anything is sent
    for name in ("bad\x1b[2J", "bad\nname", "bad\u202e"):
        with shell.site.connect() as cluster:
            with pytest.raises(refused, match="control characters"):
                admin.login(cluster.connection, name, ADMIN)
            with admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as administration:
                with pytest.raises(refused, match="control characters"):
                    administration.add_user(name, "monitor", "a password")
                with pytest.raises(refused, match="control characters"):
                    administration.create_keyrings(name)
    directory = str(shell.site.member.directory.root)
    for arguments in ([], ["--json"]):
        assert not {"\x1b", "\x9b", "\u202e"} & set(shell.run("audit", "show", "--member-dir", directory, *arguments))


def test_the_command_line_shows_and_verifies_the_audit_trail(shell: Shell) -> None:
    directory = str(shell.site.member.directory.root)
    report = json.loads(shell.run("audit", "verify", "--member-dir", directory, "--json"))
    assert report["problem"] == ""
    records = json.loads(shell.run("audit", "show", "--member-dir", directory, "--json"))
    assert "keyring.create" in [record["operation"] for record in records]
    assert records[-1]["index"] > len(records), "signatures have indexes that no record has"
    report = json.loads(shell.run("audit", "verify", "--member-dir", directory, "--json"))
    assert report["signatures"] >= records[-1]["index"] - len(records)
    assert "none is missing" in shell.run("audit", "verify", "--member-dir", directory)
