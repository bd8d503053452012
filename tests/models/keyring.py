"""A keyring of a pure worker, with a method for each thing that is done with its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lnh_common.messages import admin, objects
from lnh_common.messages.base import Message, Operation, Q
from lnh_common.messages.objects import KeyPair, ObjectView, SessionObject
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import GENERATORS, Mechanism
from lnh_common.pkcs11.parameters import pack_parameters
from models.worker import KRCO, KRSO, Client, World, make_keyring

SECRET: Final = ObjectClass.SECRET_KEY


def template(named: dict[str, Any]) -> dict[int, Any]:
    """Return attributes named in upper case as the wire has them; one that is a mapping is a template itself."""
    return {
        Attribute[name].value: template(value) if isinstance(value, dict) else value for name, value in named.items()
    }


@dataclass
class Keyring:
    """A keyring, and the client that is logged in to it."""

    client: Client
    id: bytes

    @classmethod
    def made(
        cls, client: Client | None = None, label: str = "payments", policy: dict[str, Any] | None = None
    ) -> Keyring:
        """Make a keyring with this policy, of the cluster too, and log in as its KRCO."""
        if client is None:
            world = World()
            client = Client(world, world.worker()).register()
        keyring = cls(client, make_keyring(client, label))
        if policy:
            client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=policy))
            keyring.log_in(Role.KRSO)
            client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes=policy), keyring.id)
        keyring.log_in()
        return keyring

    def log_in(self, role: Role = Role.KRCO) -> None:
        """Begin a session of a role."""
        password = KRCO if role is Role.KRCO else KRSO
        self.client.login(Credential(role=role, keyring=self.id, password=password))

    def _make(
        self,
        stored: Operation[Q, ObjectView],
        of_session: Operation[Q, SessionObject],
        message: Q,
        named: dict[str, Any],
    ) -> ObjectView:
        if named.get("TOKEN") is False:
            return self.client.ask(of_session, message, self.id)
        return self.client.ask(stored, message, self.id)

    def secret(self, key_type: KeyType = KeyType.AES, **named: Any) -> ObjectView:
        """Generate a secret key, of 256 bits where nothing else is said."""
        message = objects.GenerateKey(mechanism=GENERATORS[key_type], template=template({"VALUE_LEN": 32} | named))
        return self._make(objects.GENERATE, objects.GENERATE_IN_SESSION, message, named)

    def pair(self, key_type: KeyType, public: dict[str, Any], private: dict[str, Any] | None = None) -> KeyPair:
        """Generate a key pair."""
        message = objects.GenerateKeyPair(
            mechanism=GENERATORS[key_type],
            public_template=template(public),
            private_template=template(private or {}),
        )
        return self.client.ask(objects.GENERATE_PAIR, message, self.id)

    def create(self, value: bytes, object_class: ObjectClass = SECRET, **named: Any) -> ObjectView:
        """Bring a value in."""
        message = objects.CreateObject(template=template({"CLASS": object_class} | named), value=value)
        return self._make(objects.CREATE, objects.CREATE_IN_SESSION, message, named)

    def copy(self, key: ObjectView, **named: Any) -> ObjectView:
        """Copy an object."""
        return self.client.ask(objects.COPY, objects.Copy(handle=key.handle, template=template(named)), self.id)

    def set(self, key: ObjectView, **named: Any) -> ObjectView:
        """Change attributes."""
        message = objects.SetAttributes(handle=key.handle, template=template(named))
        return self.client.ask(objects.SET, message, self.id)

    def destroy(self, key: ObjectView) -> None:
        """Destroy an object."""
        self.client.ask(objects.DESTROY, objects.Destroy(handle=key.handle), self.id)

    def value(self, key: ObjectView) -> bytes:
        """Read a key's value."""
        message = objects.Show(handle=key.handle, sealed=carried(key))
        return self.client.ask(objects.VALUE, message, self.id).value

    def wrap(
        self,
        wrapping: ObjectView,
        key: ObjectView,
        mechanism: Mechanism = Mechanism.AES_KEY_WRAP_PAD,
        parameters: Message | None = None,
    ) -> bytes:
        """Wrap a key with another."""
        message = objects.Wrap(
            handle=wrapping.handle,
            mechanism=mechanism,
            key=key.handle,
            parameters=pack_parameters(parameters),
            sealed=carried(wrapping),
            key_sealed=carried(key),
        )
        return self.client.ask(objects.WRAP, message, self.id).data

    def unwrap(
        self,
        unwrapping: ObjectView,
        data: bytes,
        key_type: KeyType = KeyType.AES,
        mechanism: Mechanism = Mechanism.AES_KEY_WRAP_PAD,
        object_class: ObjectClass = SECRET,
        parameters: Message | None = None,
        **named: Any,
    ) -> ObjectView:
        """Unwrap a key."""
        message = objects.Unwrap(
            handle=unwrapping.handle,
            mechanism=mechanism,
            template=template({"CLASS": object_class, "KEY_TYPE": key_type} | named),
            parameters=pack_parameters(parameters),
            sealed=carried(unwrapping),
            data=data,
        )
        return self._make(objects.UNWRAP, objects.UNWRAP_IN_SESSION, message, named)

    def derive(
        self,
        base: ObjectView,
        key_type: KeyType = KeyType.AES,
        mechanism: Mechanism = Mechanism.HKDF_DERIVE,
        parameters: Message | None = None,
        **named: Any,
    ) -> ObjectView:
        """Derive a secret key, of 256 bits where nothing else is said."""
        message = objects.Derive(
            handle=base.handle,
            mechanism=mechanism,
            template=template({"KEY_TYPE": key_type, "VALUE_LEN": 32} | named),
            parameters=pack_parameters(parameters),
            sealed=carried(base),
        )
        return self._make(objects.DERIVE, objects.DERIVE_IN_SESSION, message, named)

    def encapsulate(self, public: ObjectView, key_type: KeyType, **named: Any) -> tuple[ObjectView, bytes]:
        """Encapsulate a secret key."""
        message = objects.Derive(
            handle=public.handle,
            mechanism=Mechanism.ML_KEM,
            template=template({"KEY_TYPE": key_type} | named),
            sealed=carried(public),
        )
        if named.get("TOKEN") is False:
            of_session = self.client.ask(objects.ENCAPSULATE_IN_SESSION, message, self.id)
            return of_session.key, of_session.ciphertext
        answer = self.client.ask(objects.ENCAPSULATE, message, self.id)
        return answer.key, answer.ciphertext

    def decapsulate(self, private: ObjectView, data: bytes, key_type: KeyType, **named: Any) -> ObjectView:
        """Decapsulate a secret key."""
        message = objects.Decapsulate(
            handle=private.handle,
            mechanism=Mechanism.ML_KEM,
            template=template({"KEY_TYPE": key_type} | named),
            sealed=carried(private),
            data=data,
        )
        return self._make(objects.DECAPSULATE, objects.DECAPSULATE_IN_SESSION, message, named)

    def sign(self, key: ObjectView, data: bytes, mechanism: Mechanism, parameters: Message | None = None) -> bytes:
        """Sign data, or make a tag."""
        return self.client.ask(objects.SIGN, _use(key, data, mechanism, parameters), self.id).data

    def encrypt(
        self, key: ObjectView, data: bytes, mechanism: Mechanism = Mechanism.AES_GCM, parameters: Message | None = None
    ) -> objects.Result:
        """Encrypt data; the answer has the IV."""
        return self.client.ask(objects.ENCRYPT, _use(key, data, mechanism, parameters), self.id)

    def decrypt(self, key: ObjectView, data: bytes, mechanism: Mechanism, parameters: Message | None = None) -> bytes:
        """Decrypt data."""
        message = objects.Decrypt(
            handle=key.handle,
            mechanism=mechanism,
            data=data,
            parameters=pack_parameters(parameters),
            sealed=carried(key),
        )
        return self.client.ask(objects.DECRYPT, message, self.id).data

    def all(self) -> tuple[ObjectView, ...]:
        """List the stored objects."""
        return self.client.ask(objects.FIND, objects.Find(), self.id).objects


def check(key: ObjectView, value: bytes, keyring: Keyring) -> None:
    """Check that an AES key of GCM has this value, by what it encrypts."""
    encrypted = keyring.encrypt(key, b"data")
    assert AESGCM(value).decrypt(encrypted.iv, encrypted.data, None) == b"data"


def carried(key: ObjectView) -> bytes:
    """Return what a session carries of its own object; empty for a stored one."""
    return key.sealed if isinstance(key, SessionObject) else b""


def _use(key: ObjectView, data: bytes, mechanism: Mechanism, parameters: Message | None) -> objects.Use:
    return objects.Use(
        handle=key.handle,
        mechanism=mechanism,
        data=data,
        parameters=pack_parameters(parameters),
        sealed=carried(key),
    )
