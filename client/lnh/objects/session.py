"""Makes, finds and uses objects in a session: of a keyring's role, or of a partition's CO at the local console."""

from __future__ import annotations

import contextlib
import enum
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final, TypeVar

from lnh.arguments import checked
from lnh.objects import encoding, feeding, streaming, streams
from lnh.objects.calls import ObjectCalls
from lnh.objects.encoding import BytesLike
from lnh.objects.keys import CLASSES, Key, PrivateKey, PublicKey, SecretKey, StoredObject, of_view
from lnh.objects.listings import Listing, Page
from lnh.objects.streaming import Long
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    LimitReached,
    LnhError,
    MemberBehind,
    ObjectUnknown,
    TemplateIncomplete,
    TemplateInconsistent,
)
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Behind
from lnh_common.pkcs11.algorithms import CURVES, ML_DSA_SETS, ML_KEM_SETS
from lnh_common.pkcs11.attributes import Attribute, Attributes, AttributeValue, KeyType, ObjectClass, from_wire, to_wire
from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Mechanism, Use

K = TypeVar("K", bound=StoredObject)

_BY_HANDLE: Final = "name it by its handle, which `lnh key list` shows"
_DEFAULT_BITS: Final = {KeyType.AES: 256, KeyType.GENERIC_SECRET: 256, KeyType.CHACHA20: 256, KeyType.RSA: 3072}
_DEFAULT_CURVES: Final = {KeyType.EC: "P-256", KeyType.EC_EDWARDS: "Ed25519", KeyType.EC_MONTGOMERY: "X25519"}
_SETS: Final = {KeyType.ML_DSA: ML_DSA_SETS, KeyType.ML_KEM: ML_KEM_SETS}
_DEFAULT_SETS: Final = {KeyType.ML_DSA: "ML-DSA-65", KeyType.ML_KEM: "ML-KEM-768"}


@checked
class ObjectSession(ObjectCalls):
    """Base of every session that has objects.

    An object with `token=False` lives in this session only: the HSM stores nothing, the session keeps the sealed object
    and sends it along with each use. A read-only member makes and uses these objects too.
    """

    def __init__(self) -> None:
        self._own: Final[dict[bytes, StoredObject]] = {}

    def forget(self, handle: bytes) -> None:
        """Drop an object that lives in this session; raises ObjectUnknown."""
        if self._own.pop(handle, None) is None:
            raise ObjectUnknown(f"no object {handle.hex()} in this session")

    def forget_all(self) -> None:
        """Drop every object that lives in this session."""
        self._own.clear()

    def adopt(self, view: wire.ObjectView) -> StoredObject:
        """Make the object of a view, and keep it if it lives in this session."""
        made = of_view(self, view)
        if made.sealed:
            self._own[made.handle] = made
        return made

    def _made(self, view: wire.ObjectView, kind: type[K]) -> K:
        made = self.adopt(view)
        assert isinstance(made, kind), f"the HSM made a {type(made).__name__}, not a {kind.__name__}"
        return made

    def generate_key(
        self,
        key_type: KeyType,
        bits: int | None = None,
        *,
        mechanism: Mechanism | None = None,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> SecretKey:
        """Make a secret key: `session.generate_key(KeyType.AES, 256, label="backup")`.

        With `token=False` it lives in this session only.

        Args:
            bits: AES 128, 192 or 256 (the default); GENERIC_SECRET 128 to 4096; CHACHA20 256.
            mechanism: None takes the key type's.
            template, attributes: attributes by number, or by name in lower case.

        Raises TemplateInconsistent, AttributeInvalid, KeySizeRange, LimitReached, MemberReadOnly, OutcomeUnknown.
        """
        message = key_message(key_type, bits, mechanism, template, attributes)
        if message.template.get(Attribute.TOKEN) is False:
            return self._made(self.ask(wire.GENERATE_IN_SESSION, message, timeout), SecretKey)
        return self._made(self.ask(wire.GENERATE, message, timeout), SecretKey)

    def generate_keypair(
        self,
        key_type: KeyType,
        bits: int | None = None,
        *,
        curve: str | None = None,
        parameter_set: str | None = None,
        mechanism: Mechanism | None = None,
        public: Mapping[Attribute, AttributeValue] | None = None,
        private: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> tuple[PublicKey, PrivateKey]:
        """Make a key pair: `session.generate_keypair(KeyType.EC, curve="P-256", label="ca")`.

        Args:
            bits: RSA 2048, 3072 (the default), 4096 or 8192.
            curve: of EC, EC_EDWARDS and EC_MONTGOMERY: a name of `lnh_common.pkcs11.mechanisms.CURVES`.
            parameter_set: of ML_DSA and ML_KEM: `ML-DSA-65`, `ML-KEM-768` and so on.
            public, private: attributes of one half.
            attributes: by name in lower case; each goes to the half that has it, or to both.

        Raises as `generate_key` does.
        """
        message = pair_message(key_type, bits, curve, parameter_set, mechanism, public, private, attributes)
        both = (message.public_template, message.private_template)
        in_session = [half.get(Attribute.TOKEN) is False for half in both]
        if in_session[0] != in_session[1]:
            raise TemplateInconsistent("TOKEN: both halves of a pair live in the session, or neither")
        pair: wire.KeyPair | wire.SessionKeyPair
        if in_session[0]:
            pair = self.ask(wire.GENERATE_PAIR_IN_SESSION, message, timeout)
        else:
            pair = self.ask(wire.GENERATE_PAIR, message, timeout)
        return self._made(pair.public, PublicKey), self._made(pair.private, PrivateKey)

    def create_object(
        self,
        object_class: ObjectClass,
        value: bytes,
        *,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> StoredObject:
        """Make an object of a value: `session.create_object(ObjectClass.SECRET_KEY, value, key_type=KeyType.AES)`.

        Secret and private keys come in only where the policy's `import` is true. A key that came in is not LOCAL, so it
        wraps nothing unless the KRSO made it TRUSTED. With `token=False` the object lives in this session only.

        Args:
            value: the bytes of a secret key; PKCS#8 DER of a private key; SubjectPublicKeyInfo DER of a public key; DER
                of an X.509 certificate; data. Up to 64 KiB.
            template, attributes: attributes by number, or by name in lower case; `key_type` of a secret key.

        Raises PolicyForbids, TemplateIncomplete, TemplateInconsistent, AttributeInvalid, KeySizeRange, LimitReached,
        MemberReadOnly, OutcomeUnknown.
        """
        said = {Attribute.CLASS.value: object_class.value} | encoding.template(template, attributes)
        if said[Attribute.CLASS.value] != object_class.value:
            raise TemplateInconsistent("CLASS: the template contradicts object_class")
        if len(value) > limits.OBJECT_BYTES:
            raise LimitReached(f"a value of {len(value)} bytes; at most {limits.OBJECT_BYTES}")
        message = wire.CreateObject(template=said, value=bytes(value))
        if said.get(Attribute.TOKEN) is False:
            return self._made(self.ask(wire.CREATE_IN_SESSION, message, timeout), CLASSES[object_class])
        return self._made(self.ask(wire.CREATE, message, timeout), CLASSES[object_class])

    def import_file(
        self,
        data: bytes | BinaryIO,
        *,
        passphrase: str | Callable[[], str] | None = None,
        form: str | None = None,
        key_type: KeyType | None = None,
        label: str | None = None,
        only: ObjectClass | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> list[StoredObject]:
        """Make objects of all keys, certificates and secrets that a file holds, or of none.

        PEM, DER, PKCS #12, JWK and OpenSSH are told apart by themselves; of keys PKCS #8 (also encrypted), PKCS #1 and
        SEC 1 are read. The public half of a private key is made, too. Private keys and secrets come in only where the
        policy's `import` is true. Importing the same file again makes other objects.

        Args:
            data: the file, open or its bytes, up to 1 MiB.
            passphrase: of an encrypted file, or what asks for it, which is called only for one.
            form: "pem", "der", "pkcs12", "jwk" or "openssh"; None finds it. "raw" takes the bytes for a secret key.
            key_type: of a secret.
            label: of all that is made; None for the names that the file has.
            only: a class; a file that holds something else is refused.
            attributes: by name in lower case; each goes to the objects that have it. Without `id`, what belongs
                together gets the key identifier of RFC 5280; a certificate gets that of its private key in the keyring.

        Raises KeyFileInvalid, PassphraseIncorrect, DataLength, PolicyForbids and what `create_object` raises. An error
        midway destroys what was made.
        """
        from lnh.objects import imports, key_files

        content = data if isinstance(data, bytes) else streams.read(data, limits.KEY_FILE_BYTES + 1)
        forms = {each.value: each for each in key_files.Form}
        if form is not None and form not in forms:
            raise ArgumentInvalid(f"form {form!r}; there are {', '.join(forms)}")
        ask = (lambda: passphrase) if isinstance(passphrase, str) else passphrase
        found = key_files.read(content, ask, None if form is None else forms[form])
        plans = imports.plan(found, attributes, key_type=key_type, label=label, only=only)
        made: list[StoredObject] = []
        try:
            for each in plans:
                template = from_wire(encoding.template(None, each.attributes))
                if each.public and (its := self._id_of_private(each.public)):
                    template[Attribute.ID] = its
                value = each.value.reveal()
                made.append(self.create_object(each.object_class, value, template=template, timeout=timeout))
        except BaseException:
            for one in made:
                with contextlib.suppress(LnhError):  # what was refused is told
                    one.destroy()
            raise
        return made

    def _id_of_private(self, public: bytes) -> bytes:
        """Return the ID of the private key with this public half; empty where there is none."""
        of_private: Attributes = {Attribute.CLASS: ObjectClass.PRIVATE_KEY.value, Attribute.PUBLIC_KEY_INFO: public}
        return next((one.id for one in self.find(of_private) if one.id), b"")

    def find_certificates(
        self,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        serial: int | None = None,
        current: bool = False,
        **attributes: object,
    ) -> Listing[StoredObject]:
        """Find certificates by what they say: `session.find_certificates(subject="CN=a.example")`.

        Args:
            subject, issuer: whole names, such as `CN=a.example,O=Example` (RFC 4514), however the certificate encodes
                them.
            serial: the serial number.
            current, attributes: as of `find`.

        Raises ArgumentInvalid for what is no name, and as `find`.
        """
        from lnh.objects import certificates

        template: Attributes = {Attribute.CLASS: ObjectClass.CERTIFICATE.value}
        if serial is not None:
            template[Attribute.SERIAL_NUMBER] = certificates.serial_number(serial)
        found = self.find(template, current=current, **attributes)
        for text, which in ((subject, Attribute.SUBJECT), (issuer, Attribute.ISSUER)):
            if text is not None:
                found = found.where(certificates.named(which, certificates.subject_of(text)))
        return found

    def digest(
        self, data: BytesLike | BinaryIO, mechanism: Mechanism = Mechanism.SHA256, *, timeout: float | None = None
    ) -> bytes:
        """Hash data of any length, or an open file, in the HSM.

        Raises MechanismInvalid, PolicyForbids, NotPossible in a partition, and what a call raises.
        """
        streaming.check_parts(self, mechanism)
        source = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
        fields = streaming.fields_of(wire.StreamedUse.DIGEST, b"", b"", mechanism, None)
        return feeding.feed(self, Long(source), fields, timeout)

    def find(
        self,
        template: Mapping[Attribute, AttributeValue] | None = None,
        *,
        current: bool = False,
        **attributes: object,
    ) -> Listing[StoredObject]:
        """Find the objects with these attributes: those of this session, then the stored ones in handle order.

        Handle order is by the millisecond of the request, by the clock of the machine that asked; objects of one
        connection and millisecond are in the order in which it asked. It is the same on every member and in every page.

        `session.find(key_type=KeyType.AES)`; an `object_class` is the attribute CLASS. Pages come as they are taken. A
        member that is behind says so in its listing (`Listing.current`), and names what does not open there
        (`skipped`).

        Args:
            current: demand all there is, from a member that is in step, or raise MemberBehind.

        Raises MemberBehind where a member that is behind has none, since there may be some by now.
        """
        values = encoding.template(template, _named(attributes))
        return Listing(self._pages(values, current=current))

    def _pages(self, values: dict[int, Any], *, current: bool) -> Iterator[Page[StoredObject]]:
        own = [one for one in list(self._own.values()) if _has(one, values)]
        yield own, None, ()
        if values.get(Attribute.TOKEN) is False:
            return
        after, more = b"", True
        while more:
            try:
                found = self.ask(wire.FIND, wire.Find(template=values, after=after), current=current)
            except MemberBehind as error:
                if current or not own or after:
                    raise
                yield [], Behind.of(error), ()
                return
            yield [of_view(self, view) for view in found.objects], found.behind, found.skipped
            last = found.last or b"".join(view.handle for view in found.objects[-1:])  # some name none
            more, after = found.more and last > after, last

    def get_key(
        self,
        template: Mapping[Attribute, AttributeValue] | None = None,
        *,
        current: bool = False,
        **attributes: object,
    ) -> Key:
        """Find the one key with these attributes: `session.get_key(label="ca", object_class=ObjectClass.PRIVATE_KEY)`.

        Without an `object_class` the private key of a pair is meant. A member that is behind is believed where it has
        exactly one; only a member that is in step can say that there is none, or that there are several.

        Args:
            current: ask a member that is in step in any case.

        Raises ObjectUnknown when there is none, LimitReached when there are several, MemberBehind when no member that
        is in step could be asked.
        """
        listing = self.find(template, current=current, **attributes)
        found = [one for one in listing if isinstance(one, Key)]
        if len(found) > 1 and "object_class" not in attributes:
            found = [one for one in found if not isinstance(one, PublicKey)] or found
        if len(found) != 1 and not listing.current:
            return self.get_key(template, current=True, **attributes)
        said = ", ".join(f"{name} {_said(value)}" for name, value in attributes.items())
        if not found:
            raise ObjectUnknown(f"no key with {said or 'this template'}")
        if len(found) > 1:
            several = f"{len(found)} keys with {said or 'this template'}; one is wanted"
            raise LimitReached(several, {"advice": _BY_HANDLE})
        return found[0]

    def get_object(self, handle: bytes) -> StoredObject:
        """Find the object with this 16-byte handle; raises ObjectUnknown, or MemberBehind where that cannot be told."""
        return self._own.get(handle) or of_view(self, self.ask(wire.SHOW, wire.Show(handle=handle)))


def _said(value: object) -> str:
    """Spell a searched value as a message names it."""
    if isinstance(value, enum.Enum):
        return value.name
    return value.hex() if isinstance(value, bytes) else repr(value)


def key_message(
    key_type: KeyType,
    bits: int | None,
    mechanism: Mechanism | None,
    template: Mapping[Attribute, AttributeValue] | None,
    attributes: Mapping[str, object],
) -> wire.GenerateKey:
    """Make the request for a secret key; raises ArgumentInvalid, KeySizeRange."""
    mechanism = _generator(key_type, Use.GENERATE, mechanism)
    size = encoding.whole_bytes(key_type, _DEFAULT_BITS[key_type] if bits is None else bits)
    said = encoding.template(template, attributes)
    values = _agreed({Attribute.VALUE_LEN.value: size}, said, given=bits is not None)
    return wire.GenerateKey(mechanism=mechanism.value, template=values)


def pair_message(
    key_type: KeyType,
    bits: int | None,
    curve: str | None,
    parameter_set: str | None,
    mechanism: Mechanism | None,
    public: Mapping[Attribute, AttributeValue] | None,
    private: Mapping[Attribute, AttributeValue] | None,
    attributes: Mapping[str, object],
) -> wire.GenerateKeyPair:
    """Make the request for a key pair; raises ArgumentInvalid, TemplateIncomplete."""
    mechanism = _generator(key_type, Use.GENERATE_PAIR, mechanism)
    of_public, of_private = encoding.split_template(attributes, key_type)
    given = not (bits is None and curve is None and parameter_set is None)
    parameters = _parameters(key_type, bits, curve, parameter_set)
    return wire.GenerateKeyPair(
        mechanism=mechanism.value,
        public_template=_agreed(parameters, encoding.template(public, of_public), given=given),
        private_template=encoding.template(private, of_private),
    )


def _agreed(parameters: dict[int, Any], said: dict[int, Any], *, given: bool) -> dict[int, Any]:
    """Add what to generate to a template, which may say something else only where nothing was `given`."""
    for number, value in parameters.items():
        if given and said.get(number, value) != value:
            name = Attribute(number).name
            raise TemplateInconsistent(f"{name}: the template says {said[number]!r}, the arguments say {value!r}")
    return parameters | said


def _generator(key_type: KeyType, use: Use, mechanism: Mechanism | None) -> Mechanism:
    chosen = mechanism if mechanism is not None else GENERATORS[key_type]
    if use not in MECHANISM_RULES[chosen].uses:
        other = "generate_key" if use is Use.GENERATE_PAIR else "generate_keypair"
        raise ArgumentInvalid(f"{key_type.name}: {chosen.name} is for {other}()")
    return chosen


def _parameters(key_type: KeyType, bits: int | None, curve: str | None, parameter_set: str | None) -> dict[int, Any]:
    """Make the attributes of the public half that say what to generate."""
    takes = "bits" if key_type is KeyType.RSA else "parameter_set" if key_type in _SETS else "curve"
    for name, value in (("bits", bits), ("curve", curve), ("parameter_set", parameter_set)):
        if value is not None and name != takes:
            raise ArgumentInvalid(f"{name}: a {key_type.name} key pair takes {takes}")
    if key_type is KeyType.RSA:
        return {Attribute.MODULUS_BITS.value: _DEFAULT_BITS[key_type] if bits is None else bits}
    if key_type in _SETS:
        sets = {name: number for number, name in _SETS[key_type].items()}
        name = parameter_set or _DEFAULT_SETS[key_type]
        if name not in sets:
            raise TemplateIncomplete(f"PARAMETER_SET {name!r}; there are {', '.join(sets)}")
        return {Attribute.PARAMETER_SET.value: sets[name]}
    name = curve or _DEFAULT_CURVES[key_type]
    row = CURVES.get(name)
    if row is None or row.key_type is not key_type:
        fitting = ", ".join(row.name for row in CURVES.values() if row.key_type is key_type)
        raise TemplateIncomplete(f"curve {name!r}; for {key_type.name} there are {fitting}")
    return {Attribute.EC_PARAMS.value: row.oid}


def _named(attributes: Mapping[str, object]) -> dict[str, object]:
    named = dict(attributes)
    if "object_class" in named:
        named["class"] = named.pop("object_class")
    return named


def _has(found: StoredObject, template: Mapping[int, Any]) -> bool:
    wanted = {name: value for name, value in template.items() if name != Attribute.VALUE}  # as the HSM compares
    return wanted.items() <= to_wire(found.attributes).items()
