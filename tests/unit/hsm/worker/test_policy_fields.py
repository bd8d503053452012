"""Each field of a policy, asked over the real channel: what it stops, and that it is enforced where it is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from lnh_common import errors, limits
from lnh_common.messages import admin, hsm, objects, session
from lnh_common.messages.base import Empty
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import GcmParameters, pack_parameters
from lnh_services.hsm.objects.policy import OF_THE_CLUSTER, STRICTER
from models.worker import KRCO, KRSO, Client, World, generate_ec, sign

A = Attribute
M = Mechanism
DATA: Final = bytes(16)


class Scene:
    """A KRCO of one keyring, and the PO who changes the cluster's policy."""

    def __init__(self, world: World, client: Client, keyring: bytes) -> None:
        self.world, self.client, self.keyring = world, client, keyring

    def rule(self, **changes: Any) -> None:
        """Change the cluster's policy, and log in as KRCO anew."""
        self.client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=changes))
        self.login()

    def login(self, role: Role = Role.KRCO) -> session.LoggedIn:
        password = KRCO if role is Role.KRCO else KRSO
        return self.client.login(Credential(role=role, keyring=self.keyring, password=password))

    def aes(self, **template: Any) -> bytes:
        named: dict[int, Any] = {A.VALUE_LEN.value: 16} | {
            Attribute[name].value: value for name, value in template.items()
        }
        return self.secret(M.AES_KEY_GEN, named)

    def secret(self, mechanism: Mechanism, template: dict[int, Any]) -> bytes:
        message = objects.GenerateKey(mechanism=mechanism, template=template)
        return self.client.ask(objects.GENERATE, message, self.keyring).handle

    def pair(self, mechanism: Mechanism, **template: Any) -> bytes:
        named = {Attribute[name].value: value for name, value in template.items()}
        message = objects.GenerateKeyPair(mechanism=mechanism, public_template=named)
        return self.client.ask(objects.GENERATE_PAIR, message, self.keyring).private.handle

    def encrypt(self, handle: bytes, mechanism: Mechanism = M.AES_GCM, parameters: bytes = b"") -> bytes:
        use = objects.Use(handle=handle, mechanism=mechanism, data=DATA, parameters=parameters)
        return self.client.ask(objects.ENCRYPT, use, self.keyring).data


@pytest.fixture
def scene(world: World, client: Client, keyring: bytes) -> Scene:
    return Scene(world, client, keyring)


def allowed_mechanisms(scene: Scene) -> None:
    key = scene.aes()
    scene.encrypt(key)
    scene.rule(allowed_mechanisms=["AES_KEY_GEN", "AES_CBC_PAD"])
    with pytest.raises(errors.PolicyForbids, match="AES_GCM is not among the policy's allowed_mechanisms"):
        scene.encrypt(key)
    with pytest.raises(errors.PolicyForbids, match="EC_KEY_PAIR_GEN"):
        generate_ec(scene.client, scene.keyring)


def weak_mechanisms(scene: Scene) -> None:
    key = scene.aes(ALLOWED_MECHANISMS=[M.AES_ECB.value])
    with pytest.raises(errors.PolicyForbids, match="weak_mechanisms"):
        scene.encrypt(key, M.AES_ECB)
    scene.rule(weak_mechanisms=["AES_ECB"])
    assert len(scene.encrypt(key, M.AES_ECB)) == len(DATA)


def minimum_rsa_bits(scene: Scene) -> None:
    scene.rule(minimum_rsa_bits=3072)
    with pytest.raises(errors.PolicyForbids, match="minimum_rsa_bits is 3072"):
        scene.pair(M.RSA_PKCS_KEY_PAIR_GEN, MODULUS_BITS=2048)


def caller_ivs(scene: Scene) -> None:
    key, chosen = scene.aes(), pack_parameters(GcmParameters(iv=bytes(12)))
    with pytest.raises(errors.PolicyForbids, match="caller_ivs"):
        scene.encrypt(key, parameters=chosen)
    scene.rule(caller_ivs=True)
    scene.encrypt(key, parameters=chosen)


def key_uses(scene: Scene) -> None:
    with pytest.raises(errors.TemplateInconsistent, match="key_uses = separated"):
        scene.aes(ENCRYPT=True, SIGN=True)
    scene.rule(key_uses="compatible")
    key = scene.aes(ENCRYPT=True, SIGN=True)
    scene.encrypt(key)
    scene.rule(key_uses="separated")
    with pytest.raises(errors.PolicyForbids, match="key_uses = separated"):
        scene.encrypt(key)


def import_(scene: Scene) -> None:
    template = {A.CLASS.value: ObjectClass.SECRET_KEY.value, A.KEY_TYPE.value: KeyType.AES.value}
    create = objects.CreateObject(template=template | {A.ENCRYPT.value: True}, value=bytes(16))
    with pytest.raises(errors.PolicyForbids, match="import"):
        scene.client.ask(objects.CREATE, create, scene.keyring)
    scene.rule(**{"import": True})
    scene.encrypt(scene.client.ask(objects.CREATE, create, scene.keyring).handle)


def export_wrapped(scene: Scene) -> None:
    wrapping = scene.aes(WRAP=True)
    key = scene.aes(EXTRACTABLE=True)
    scene.rule(export_wrapped=False)
    wrap = objects.Wrap(handle=wrapping, mechanism=M.AES_KEY_WRAP, key=key)
    with pytest.raises(errors.PolicyForbids, match="export_wrapped"):
        scene.client.ask(objects.WRAP, wrap, scene.keyring)


def per_use_audit(scene: Scene) -> None:
    pair = generate_ec(scene.client, scene.keyring)
    scene.rule(per_use_audit=True)
    scene.world.audit.clear()
    sign(scene.client, scene.keyring, pair.private.handle)
    many = objects.UseMany(handle=pair.private.handle, mechanism=M.ECDSA, items=(bytes(32), b"short"))
    scene.client.ask(objects.SIGN_MANY, many, scene.keyring)
    with pytest.raises(errors.KeyFunctionNotPermitted):
        sign(scene.client, scene.keyring, pair.public.handle)
    told = [(each.operation, each.outcome, each.detail.get("item")) for each in scene.world.audit]
    assert told == [
        ("key.sign", "ok", None),
        ("key.sign-many", "ok", 0),
        ("key.sign-many", "ok", 1),
        ("key.sign-many", "DataLength", 1),
        ("key.sign", "ok", None),
        ("key.sign", "KeyFunctionNotPermitted", None),
    ]
    assert scene.world.audit[0].target == f"{scene.keyring.hex()}/{pair.private.handle.hex()}"
    assert scene.world.audit[0].identity == "krco@client"
    assert scene.client.worker.take_uses() == [], "what has its own record is not counted besides"


def objects_per_keyring(scene: Scene) -> None:
    scene.rule(objects_per_keyring=1)
    scene.aes()
    with pytest.raises(errors.LimitReached, match="a keyring holds at most 1"):
        scene.aes()


def token_lifetime(scene: Scene) -> None:
    scene.rule(token_lifetime=60)
    assert scene.login().expires == int(scene.world.now) + 60
    scene.world.now += 61 + limits.CLOCK_TOLERANCE
    with pytest.raises(errors.TokenExpired):
        scene.aes()


def session_lifetime(scene: Scene) -> None:
    scene.rule(session_lifetime=600)
    logged_in = scene.login()
    assert logged_in.ends == logged_in.expires == int(scene.world.now) + 600
    scene.world.now += 300
    scene.client.ask(session.RENEW, Empty())
    key = scene.aes()
    scene.world.now += 301 + limits.CLOCK_TOLERANCE
    for late in (lambda: scene.client.ask(session.RENEW, Empty()), lambda: scene.encrypt(key)):
        with pytest.raises(errors.TokenExpired):
            late()


def read_only_max(scene: Scene) -> None:
    scene.rule(read_only_max=0)
    key = scene.aes()
    scene.world.attach(scene.client.worker, read_write=False)
    scene.world.now += 1
    with pytest.raises(errors.MemberReadOnly, match="read_only_max"):
        scene.encrypt(key)
    scene.world.attach(scene.client.worker)
    scene.encrypt(key)


def fips(scene: Scene) -> None:
    curve = {"EC_PARAMS": CURVES["secp256k1"].oid}
    before = scene.pair(M.EC_KEY_PAIR_GEN, **curve)
    cipher = scene.aes()
    sign(scene.client, scene.keyring, before)
    scene.rule(fips=True, caller_ivs=True, weak_mechanisms=["AES_ECB"])
    refused: tuple[Callable[[], object], ...] = (
        lambda: sign(scene.client, scene.keyring, before),
        lambda: scene.pair(M.EC_KEY_PAIR_GEN, **curve),
        lambda: scene.secret(M.CHACHA20_KEY_GEN, {}),
        lambda: scene.pair(M.EC_MONTGOMERY_KEY_PAIR_GEN, EC_PARAMS=CURVES["X25519"].oid),
        lambda: scene.encrypt(cipher, parameters=pack_parameters(GcmParameters(iv=bytes(12)))),
        lambda: scene.encrypt(scene.aes(ALLOWED_MECHANISMS=[M.AES_ECB.value]), M.AES_ECB),
    )
    for act in refused:
        with pytest.raises(errors.PolicyForbids):
            act()
    scene.encrypt(cipher)
    generate_ec(scene.client, scene.keyring)


def dual_control(scene: Scene) -> None:
    scene.client.as_administrator().ask(
        admin.USER_ADD, admin.AddUser(name="other", role="admin", password="a password of theirs")
    )
    scene.rule(dual_control=["keyring.delete"])
    with pytest.raises(errors.ApprovalNeeded):
        scene.client.as_administrator().ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=scene.keyring))


def lock_after(scene: Scene) -> None:
    scene.rule(lock_after=1)
    with pytest.raises(errors.PasswordIncorrect, match="or locked until an admin unlocks it"):
        scene.client.login(Credential(role=Role.KRCO, keyring=scene.keyring, password="not the password"))
    with pytest.raises(errors.PasswordIncorrect):
        scene.login()


CASES: Final[dict[str, Callable[[Scene], None]]] = {
    case.__name__.rstrip("_"): case
    for case in (
        allowed_mechanisms, weak_mechanisms, import_, export_wrapped, minimum_rsa_bits, caller_ivs, key_uses, per_use_audit, objects_per_keyring,
        token_lifetime, session_lifetime, read_only_max, fips, dual_control, lock_after,
    )
}  # fmt: skip


def test_every_field_has_a_case() -> None:
    assert set(CASES) == set(STRICTER)


@pytest.mark.parametrize("field", CASES)
def test_a_field_stops_what_it_is_for(scene: Scene, field: str) -> None:
    CASES[field](scene)


def test_every_field_is_shown_by_its_name_and_told_of_in_the_documents(scene: Scene) -> None:
    page = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    shown = scene.client.ask(admin.KEYRING_POLICY, admin.PolicyChange(), scene.keyring).policy
    assert not OF_THE_CLUSTER & shown.keys()
    scene.login(Role.KRSO)
    with pytest.raises(errors.ArgumentInvalid, match="the cluster's policy has it"):
        scene.client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"dual_control": []}), scene.keyring)
    for name in STRICTER:
        assert name in shown or name in OF_THE_CLUSTER
        assert f"| `{name}` | " in page


def test_a_field_is_set_only_where_every_member_can_read_it(scene: Scene) -> None:
    scene.world.set_version("0.1")
    said = r"session_lifetime can be set once the cluster's version is 0\.2; it is 0\.1"
    with pytest.raises(errors.NotPossible, match=said):
        scene.rule(session_lifetime=600)
    scene.rule(token_lifetime=60)
    scene.world.set_version("0.2")
    scene.rule(session_lifetime=600)


def test_a_keyrings_policy_is_the_krsos_and_stricter_only(scene: Scene) -> None:
    key = scene.aes()
    narrow = admin.PolicyChange(changes={"allowed_mechanisms": ["AES_CBC"]})
    with pytest.raises(errors.PermissionDenied):
        scene.client.ask(admin.KEYRING_POLICY, narrow, scene.keyring)
    scene.rule(allowed_mechanisms=["AES_GCM", "AES_CBC", "AES_KEY_GEN"])
    scene.login(Role.KRSO)
    wide = admin.PolicyChange(changes={"allowed_mechanisms": ["AES_GCM", "ECDSA"]})
    said = "allowed_mechanisms = ECDSA, AES_GCM: looser than the cluster's AES_KEY_GEN, AES_CBC, AES_GCM"
    with pytest.raises(errors.PolicyForbids, match=said):
        scene.client.ask(admin.KEYRING_POLICY, wide, scene.keyring)
    scene.client.ask(admin.KEYRING_POLICY, narrow, scene.keyring)
    scene.login()
    with pytest.raises(errors.PolicyForbids):
        scene.encrypt(key)


def test_a_long_input_that_fails_has_a_record_of_it(scene: Scene) -> None:
    key = scene.aes()
    scene.rule(per_use_audit=True)
    scene.world.audit.clear()
    part = objects.Part(
        stream=bytes(16), use=objects.StreamedUse.ENCRYPT, mechanism=M.AES_GCM, data=b"data", offset=0, handle=key
    )

    def feed(**other: Any) -> objects.Result:
        return scene.client.ask(objects.STREAM, msgspec.structs.replace(part, **other), scene.keyring)

    feed()
    with pytest.raises(errors.StreamLost):
        feed(offset=9)
    feed(offset=4, last=True)
    with pytest.raises(errors.MechanismInvalid):
        feed(stream=b"2" * 16, use=objects.StreamedUse.SIGN)
    parameters = pack_parameters(GcmParameters(iv=bytes(12)))
    with pytest.raises(errors.EncryptedDataInvalid):
        feed(stream=b"3" * 16, use=objects.StreamedUse.DECRYPT, parameters=parameters, last=True)
    told = [each.outcome for each in scene.world.audit if each.operation == objects.STREAM.name]
    assert told == ["ok", "StreamLost", "ok", "MechanismInvalid", "ok", "EncryptedDataInvalid"]
    assert scene.client.worker.take_uses() == []
    scene.rule(per_use_audit=False)
    with pytest.raises(errors.EncryptedDataInvalid):
        feed(stream=b"4" * 16, use=objects.StreamedUse.DECRYPT, parameters=parameters, last=True)
    assert [each.outcome for each in scene.world.audit if each.operation == objects.STREAM.name] == told


def test_a_use_that_cannot_be_recorded_is_not_made(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    key = scene.aes()
    scene.rule(per_use_audit=True)
    answer = scene.world.answer

    def failing(asked: Any) -> Any:
        if isinstance(asked.message, hsm.Audit):
            raise errors.AuditFailed("the disk is full")
        return answer(asked)

    monkeypatch.setattr(scene.world, "answer", failing)
    with pytest.raises(errors.AuditFailed):
        scene.encrypt(key)
    assert scene.client.worker.caches.keys.get((scene.keyring, key)) is None


def test_a_key_destroyed_while_its_use_is_recorded_is_not_used(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    key = scene.aes()
    scene.rule(per_use_audit=True)
    scene.encrypt(key)
    other = Client(scene.world, scene.world.worker()).register("other")
    other.login(Credential(role=Role.KRCO, keyring=scene.keyring, password=KRCO))
    answer = scene.world.answer

    def destroying(asked: Any) -> Any:
        answered = answer(asked)
        if isinstance(asked.message, hsm.Audit) and asked.message.entries[0].operation == objects.ENCRYPT.name:
            monkeypatch.setattr(scene.world, "answer", answer)
            other.ask(objects.DESTROY, objects.Destroy(handle=key), scene.keyring)
        return answered

    monkeypatch.setattr(scene.world, "answer", destroying)
    with pytest.raises(errors.ObjectUnknown):
        scene.encrypt(key)
    outcomes = [each.outcome for each in scene.world.audit if each.operation == objects.ENCRYPT.name]
    assert outcomes == ["ok", "ok", "ObjectUnknown"]
