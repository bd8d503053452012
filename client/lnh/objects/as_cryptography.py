"""Offers private keys in the cluster as `cryptography` has private keys, to sign certificates and the like.

`x509.CertificateBuilder().sign(private.as_cryptography(), hashes.SHA256())` works as with any other key. A method that
would need the key's value raises AttributeSensitive.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, Protocol, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common.errors import AttributeSensitive, KeyTypeInconsistent
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import Attribute, AttributeValue, KeyType
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import HashedParameters, MldsaParameters, OaepParameters, PssParameters

_ECDSA: Final = {
    "sha256": Mechanism.ECDSA_SHA256,
    "sha384": Mechanism.ECDSA_SHA384,
    "sha512": Mechanism.ECDSA_SHA512,
}
_PKCS1: Final = {
    "sha256": Mechanism.SHA256_RSA_PKCS,
    "sha384": Mechanism.SHA384_RSA_PKCS,
    "sha512": Mechanism.SHA512_RSA_PKCS,
}
_PSS: Final = {
    "sha256": Mechanism.SHA256_RSA_PKCS_PSS,
    "sha384": Mechanism.SHA384_RSA_PKCS_PSS,
    "sha512": Mechanism.SHA512_RSA_PKCS_PSS,
}
_V15: Final = "EMSA-PKCS1-v1_5"
_HASHES: Final = {"sha1": Hash.SHA1, "sha256": Hash.SHA256, "sha384": Hash.SHA384, "sha512": Hash.SHA512}


class KeyInHsm(Protocol):
    """The key that is wrapped, as `lnh.objects.keys.PrivateKey` is."""

    @property
    def key_type(self) -> KeyType:
        """The key's type."""

    def __getitem__(self, attribute: Attribute) -> AttributeValue: ...

    def sign(
        self, data: bytes, mechanism: Mechanism | None = None, parameters: Message | None = None, *, der: bool = False
    ) -> bytes:
        """Sign data in the HSM, as `SigningKey.sign`."""

    def decrypt(self, data: bytes, mechanism: Mechanism | None = None, parameters: Message | None = None) -> bytes:
        """Decrypt data in the HSM, as `DecryptingKey.decrypt`."""


class _Wrapper:
    """Base of the wrapped keys; the key stays in the HSM."""

    def __init__(self, key: KeyInHsm, public: Any) -> None:
        self._key = key
        self._public = public

    def public_key(self) -> Any:
        return self._public

    def private_numbers(self) -> NoReturn:
        self._refuse()

    def private_bytes(self, *_: object, **__: object) -> NoReturn:
        self._refuse()

    def private_bytes_raw(self) -> NoReturn:
        self._refuse()

    def exchange(self, *_: object) -> NoReturn:
        raise AttributeSensitive("a shared secret never leaves the HSM; derive a key from it there")

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: object) -> Any:
        return self

    def _refuse(self) -> NoReturn:
        raise AttributeSensitive("a private key's value never leaves the HSM")


class EcKey(_Wrapper, ec.EllipticCurvePrivateKey):
    """An elliptic-curve private key; its signatures are DER, as `cryptography`'s are."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """The key's curve."""
        curve: ec.EllipticCurve = self._public.curve
        return curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's field."""
        size: int = self._public.key_size
        return size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign data, or a digest (`Prehashed`), with ECDSA.

        Raises UnsupportedAlgorithm for another algorithm, and for a deterministic signature.
        """
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm("an elliptic-curve key signs with ECDSA")
        if signature_algorithm.deterministic_signing:
            raise UnsupportedAlgorithm("deterministic_signing: the HSM's ECDSA draws its number for each signature")
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed):
            return self._key.sign(_digest(data, algorithm._algorithm), Mechanism.ECDSA, der=True)
        return self._key.sign(_bytes(data), _choose(_ECDSA, algorithm), der=True)


class RsaKey(_Wrapper, rsa.RSAPrivateKey):
    """An RSA private key."""

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        size: int = self._public.key_size
        return size

    def sign(self, data: Any, padding: padding.AsymmetricPadding, algorithm: Any) -> bytes:
        """Sign data, or a digest (`Prehashed`), with PKCS #1 v1.5 or PSS.

        Raises UnsupportedAlgorithm for another padding or hash, and for a mask over another hash than the padding's.
        """
        if isinstance(algorithm, NoDigestInfo):
            if padding.name != _V15:
                raise UnsupportedAlgorithm("NoDigestInfo goes with PKCS1v15")
            return self._key.sign(_bytes(data), Mechanism.RSA_PKCS)
        prehashed = isinstance(algorithm, Prehashed)
        inner: hashes.HashAlgorithm = algorithm._algorithm if isinstance(algorithm, Prehashed) else algorithm
        message = _digest(data, inner) if prehashed else _bytes(data)
        if padding.name == "EMSA-PSS":
            _check_mask(padding, inner)
            parameters: HashedParameters = PssParameters(prehashed=prehashed, salt_length=self._salt(padding, inner))
            return self._key.sign(message, _choose(_PSS, inner), parameters)
        if padding.name != _V15:
            raise UnsupportedAlgorithm(f"padding {padding.name}")
        return self._key.sign(message, _choose(_PKCS1, inner), HashedParameters(prehashed=prehashed))

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        """Decrypt data with PKCS #1 v1.5 or OAEP; raises UnsupportedAlgorithm for another padding or hash."""
        if padding.name == _V15:
            return self._key.decrypt(_bytes(ciphertext), Mechanism.RSA_PKCS)
        if padding.name != "EME-OAEP":
            raise UnsupportedAlgorithm(f"padding {padding.name}")
        hash_ = _HASHES.get(padding._algorithm.name)  # type: ignore[attr-defined]  # `cryptography` offers no other way
        mask = _HASHES.get(_mask(padding).name)
        if hash_ is None or mask is None:
            raise UnsupportedAlgorithm("OAEP takes SHA-1 or SHA-2, and MGF1 over them")
        label = padding._label or b""  # type: ignore[attr-defined]  # as above
        # The parameter is left out where it says nothing: a member of a version before does not know it.
        mgf = mask if mask is not hash_ else None
        parameters = OaepParameters(hash=hash_, label=bytes(label), mgf=mgf)
        return self._key.decrypt(_bytes(ciphertext), Mechanism.RSA_PKCS_OAEP, parameters)

    def _salt(self, pss: Any, algorithm: hashes.HashAlgorithm) -> int:
        wanted = pss._salt_length
        if isinstance(wanted, int):
            return wanted
        if wanted is padding.PSS.MAX_LENGTH:
            return padding.calculate_max_pss_salt_length(self._public, algorithm)
        if wanted is padding.PSS.DIGEST_LENGTH:
            return algorithm.digest_size
        raise UnsupportedAlgorithm("PSS.AUTO is for verifying; to sign name a length, DIGEST_LENGTH or MAX_LENGTH")


class Ed25519Key(_Wrapper, ed25519.Ed25519PrivateKey):
    """An Ed25519 private key."""

    def sign(self, data: Any) -> bytes:
        """Sign data with EdDSA."""
        return self._key.sign(_bytes(data), Mechanism.EDDSA)


class Ed448Key(_Wrapper, ed448.Ed448PrivateKey):
    """An Ed448 private key."""

    def sign(self, data: Any) -> bytes:
        """Sign data with EdDSA."""
        return self._key.sign(_bytes(data), Mechanism.EDDSA)


class _MldsaKey(_Wrapper):
    """Base of the ML-DSA private keys."""

    def sign(self, data: Any, context: Any = None) -> bytes:
        """Sign data with ML-DSA, with a context of up to 255 bytes."""
        parameters = MldsaParameters(context=b"" if context is None else _bytes(context))
        return self._key.sign(_bytes(data), Mechanism.ML_DSA, parameters)

    def sign_mu(self, mu: object) -> NoReturn:
        """Refuse a representative that was computed outside: the HSM signs messages."""
        raise UnsupportedAlgorithm("sign_mu: the HSM signs messages; give sign() the message")


class Mldsa44Key(_MldsaKey, mldsa.MLDSA44PrivateKey):
    """An ML-DSA-44 private key."""


class Mldsa65Key(_MldsaKey, mldsa.MLDSA65PrivateKey):
    """An ML-DSA-65 private key."""


class Mldsa87Key(_MldsaKey, mldsa.MLDSA87PrivateKey):
    """An ML-DSA-87 private key."""


class X25519Key(_Wrapper, x25519.X25519PrivateKey):
    """An X25519 private key. It shows its public half; a shared secret stays in the HSM, so `exchange` refuses."""


class X448Key(_Wrapper, x448.X448PrivateKey):
    """An X448 private key, as `X25519Key`."""


WrappedKey: TypeAlias = (
    EcKey | RsaKey | Ed25519Key | Ed448Key | Mldsa44Key | Mldsa65Key | Mldsa87Key | X25519Key | X448Key
)
SigningWrapper: TypeAlias = EcKey | RsaKey | Ed25519Key | Ed448Key | Mldsa44Key | Mldsa65Key | Mldsa87Key
_WRAPPERS: Final[dict[type, type[WrappedKey]]] = {
    ec.EllipticCurvePublicKey: EcKey,
    rsa.RSAPublicKey: RsaKey,
    ed25519.Ed25519PublicKey: Ed25519Key,
    ed448.Ed448PublicKey: Ed448Key,
    mldsa.MLDSA44PublicKey: Mldsa44Key,
    mldsa.MLDSA65PublicKey: Mldsa65Key,
    mldsa.MLDSA87PublicKey: Mldsa87Key,
    x25519.X25519PublicKey: X25519Key,
    x448.X448PublicKey: X448Key,
}


def wrap(key: KeyInHsm) -> WrappedKey:
    """Wrap a key as `cryptography` has private keys; raises KeyTypeInconsistent for a type that it does not have."""
    info = key[Attribute.PUBLIC_KEY_INFO]
    assert isinstance(info, bytes), "PUBLIC_KEY_INFO is bytes"
    public = load_der_public_key(info)
    for kind, wrapper in _WRAPPERS.items():
        if isinstance(public, kind):
            return wrapper(key, public)
    raise KeyTypeInconsistent(f"no wrapper for {KeyType(key.key_type).name} keys")


def sign_with(key: KeyInHsm) -> SigningWrapper:
    """Wrap a key that signs; raises KeyTypeInconsistent for a type that does not."""
    wrapped = wrap(key)
    if isinstance(wrapped, X25519Key | X448Key):
        raise KeyTypeInconsistent(f"a {KeyType(key.key_type).name} key does not sign; it derives")
    return wrapped


def _bytes(data: Any) -> bytes:
    """Copy what `cryptography` calls bytes-like; `bytes()` alone makes zeros of a number."""
    return bytes(memoryview(data))


def _digest(data: Any, algorithm: hashes.HashAlgorithm) -> bytes:
    """Check the length of a digest of this algorithm; raises ValueError, as `cryptography` does, for another length."""
    found = _bytes(data)
    if len(found) != algorithm.digest_size:
        raise ValueError(f"a digest of {len(found)} bytes; {algorithm.name} has {algorithm.digest_size}")
    return found


def _check_mask(asked: Any, algorithm: hashes.HashAlgorithm) -> None:
    """Check that the mask is made by MGF1 over the padding's own hash, as the HSM's PSS makes it."""
    mask = _mask(asked)
    if mask.name != algorithm.name:
        raise UnsupportedAlgorithm(f"MGF1 with {mask.name} beside {algorithm.name}: name one hash for both")


def _mask(asked: Any) -> hashes.HashAlgorithm:
    """Return the hash of the MGF1 that makes a padding's mask."""
    mask = asked._mgf
    if not isinstance(mask, padding.MGF1):
        raise UnsupportedAlgorithm("a mask other than MGF1")
    algorithm: hashes.HashAlgorithm = mask._algorithm
    return algorithm


def _choose(mechanisms: dict[str, Mechanism], algorithm: hashes.HashAlgorithm) -> Mechanism:
    if algorithm.name not in mechanisms:
        raise UnsupportedAlgorithm(f"hash {algorithm.name}; there are {', '.join(mechanisms)}")
    return mechanisms[algorithm.name]
