"""An application of the PKCS#11 module: its functions by `ctypes`, and the structs they take."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_ubyte, c_ulong, c_void_p, cast
from pathlib import Path
from typing import Any, Final


def names_in(text: str) -> list[str]:
    """Split a list of names that is written as text."""
    return text.split()


V2_40: Final = names_in(
    "Initialize Finalize GetInfo GetFunctionList GetSlotList GetSlotInfo GetTokenInfo GetMechanismList GetMechanismInfo "
    "InitToken InitPIN SetPIN OpenSession CloseSession CloseAllSessions GetSessionInfo GetOperationState "
    "SetOperationState Login Logout CreateObject CopyObject DestroyObject GetObjectSize GetAttributeValue "
    "SetAttributeValue FindObjectsInit FindObjects FindObjectsFinal EncryptInit Encrypt EncryptUpdate EncryptFinal "
    "DecryptInit Decrypt DecryptUpdate DecryptFinal DigestInit Digest DigestUpdate DigestKey DigestFinal SignInit Sign "
    "SignUpdate SignFinal SignRecoverInit SignRecover VerifyInit Verify VerifyUpdate VerifyFinal VerifyRecoverInit "
    "VerifyRecover DigestEncryptUpdate DecryptDigestUpdate SignEncryptUpdate DecryptVerifyUpdate GenerateKey "
    "GenerateKeyPair WrapKey UnwrapKey DeriveKey SeedRandom GenerateRandom GetFunctionStatus CancelFunction "
    "WaitForSlotEvent"
)
V3_0: Final = names_in(
    "GetInterfaceList GetInterface LoginUser SessionCancel MessageEncryptInit EncryptMessage EncryptMessageBegin "
    "EncryptMessageNext MessageEncryptFinal MessageDecryptInit DecryptMessage DecryptMessageBegin DecryptMessageNext "
    "MessageDecryptFinal MessageSignInit SignMessage SignMessageBegin SignMessageNext MessageSignFinal "
    "MessageVerifyInit VerifyMessage VerifyMessageBegin VerifyMessageNext MessageVerifyFinal"
)
V3_2: Final = names_in(
    "EncapsulateKey DecapsulateKey VerifySignatureInit VerifySignature VerifySignatureUpdate VerifySignatureFinal "
    "GetSessionValidationFlags AsyncComplete AsyncGetID AsyncJoin WrapKeyAuthenticated UnwrapKeyAuthenticated"
)
"""The functions in the order of the standard's lists, each list the one before and what it adds."""
UNAVAILABLE: Final = 2**64 - 1

Values = dict[str, Any]


class InitializeArguments(Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = [
        ("create", c_void_p),
        ("destroy", c_void_p),
        ("lock", c_void_p),
        ("unlock", c_void_p),
        ("flags", c_ulong),
        ("reserved", c_void_p),
    ]


class Attribute(Structure):
    """CK_ATTRIBUTE."""

    _fields_ = [("type", c_ulong), ("value", c_void_p), ("length", c_ulong)]


class Mechanism(Structure):
    """CK_MECHANISM."""

    _fields_ = [("type", c_ulong), ("parameter", c_void_p), ("length", c_ulong)]


class Interface(Structure):
    """CK_INTERFACE."""

    _fields_ = [("name", c_char_p), ("functions", c_void_p), ("flags", c_ulong)]


class Application:
    """The module, loaded; each call is by its name, without C_."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.functions = self.list_of(self._interface(), [*V2_40, *V3_0, *V3_2])

    def call(self, function: str, *arguments: Any) -> int:
        """Call a function, whole numbers as CK_ULONG; return the CKR."""
        given = [c_ulong(each) if isinstance(each, int) else each for each in arguments]
        result: int = self.functions[function](*given)
        return result

    @staticmethod
    def list_of(address: int, names: list[str]) -> dict[str, Any]:
        """Return the functions of a list, by name."""
        pointers = (c_void_p * len(names)).from_address(address + ctypes.sizeof(c_void_p))
        prototype = ctypes.CFUNCTYPE(c_ulong)
        return {name: prototype(pointer) for name, pointer in zip(names, pointers, strict=True) if pointer}

    def _interface(self) -> int:
        found = POINTER(Interface)()
        version = (c_ubyte * 2)(3, 2)
        assert self.library.C_GetInterface(None, byref(version), byref(found), c_ulong(0)) == 0
        address: int = found.contents.functions
        return address


def attributes(*given: tuple[int, Any, int]) -> Any:
    """Make a template: of each attribute its type, its memory (or None) and its length."""
    template: Any = (Attribute * len(given))()
    template.memory = given  # lives as long as the template
    for place, (kind, memory, length) in zip(template, given, strict=True):
        place.type = kind
        place.value = None if memory is None else cast(memory, c_void_p)
        place.length = length
    return template


def room(length: int) -> Any:
    """Make memory that no value fits by chance: all 0xaa."""
    return (c_ubyte * length)(*(0xAA,) * length)
