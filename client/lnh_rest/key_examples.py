"""An example of each request and answer about objects and keys, for the document."""

from __future__ import annotations

from typing import Any, Final

from lnh_rest import key_shapes as keys
from lnh_rest.shapes import KeyPairMade, ObjectView

HANDLE: Final = "019a4f5e0c7b7d0e8a3b5c6d7e8f9a0b"
KEY: Final = ObjectView(
    handle=HANDLE,
    version=1,
    label="backup",
    attributes={"class": "SECRET_KEY", "key_type": "AES", "label": "backup", "encrypt": True, "decrypt": True},
)
PUBLIC: Final = ObjectView(
    handle=HANDLE, version=1, label="ca", attributes={"class": "PUBLIC_KEY", "key_type": "EC", "label": "ca"}
)
PRIVATE: Final = ObjectView(
    handle=HANDLE, version=1, label="ca", attributes={"class": "PRIVATE_KEY", "key_type": "EC", "label": "ca"}
)
_DATA: Final = b"what is signed"

KEYS: Final[tuple[Any, ...]] = (
    keys.ObjectChange(attributes={"label": "new"}),
    keys.NewObject(object_class="DATA", value=b"some data", attributes={"label": "note"}),
    keys.NewCopy(attributes={"label": "second"}),
    keys.NewKeyFile(file=b"-----BEGIN CERTIFICATE-----...", label="server"),
    keys.ObjectsMade(objects=(KEY,)),
    keys.ObjectValue(value=bytes(32)),
    keys.PublicText(form=keys.PublicForm.PEM, text="-----BEGIN PUBLIC KEY-----\n..."),
    keys.NewKeyPairs(key_type="EC", curve="P-256", attributes={"label": "device-"}, total=20),
    keys.KeyPairsMade(pairs=(KeyPairMade(public=PUBLIC, private=PRIVATE),)),
    keys.Wrap(key=HANDLE),
    keys.WrappedKey(wrapped=bytes(40)),
    keys.Unwrap(wrapped=bytes(40), object_class="SECRET_KEY", key_type="AES", attributes={"label": "came back"}),
    keys.Derive(key_type="AES", parameters={"info": "YmFja3Vw"}),
    keys.Encapsulate(key_type="AES"),
    keys.EncapsulatedKey(key=KEY, ciphertext=bytes(1088)),
    keys.Decapsulate(ciphertext=bytes(1088), key_type="AES"),
    keys.SignMany(messages=(_DATA, _DATA), mechanism="ECDSA_SHA256"),
    keys.SignedMany(results=(keys.Outcome(result=bytes(64)),)),
    keys.EncryptMany(messages=(_DATA,)),
    keys.EncryptedMany(results=(keys.Outcome(result=bytes(42)),)),
    keys.DecryptMany(ciphertexts=(bytes(42),)),
    keys.DecryptedMany(results=(keys.Outcome(result=_DATA),)),
    keys.Digested(digest=bytes(32)),
)
