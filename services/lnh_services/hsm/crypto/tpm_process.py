"""Speaks to the TPM 2.0: one question comes on the standard input, its answer goes to the standard output.

    storage key   TPM2_CreatePrimary in the owner hierarchy: ECC P-256 with AES-128-CFB, the same at each start
    sealed key    TPM2_Create under it: a sealed data object, which never leaves this TPM, outside the lockout's count
    session       salted by the storage key, so that the key crosses the bus encrypted (AES-128-CFB)

Without PCRs the object opens for whoever has this TPM and what was sealed; with PCRs only while these are as they were
(TPM2_PolicyPCR). The storage key is known by its name before anything is sealed for it to open.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lnh_common.wire import codec
from lnh_services.hsm.crypto.process_hardening import harden
from lnh_services.hsm.crypto.tpm import Answered, Asked, Cause, TpmSealed

if TYPE_CHECKING:
    from tpm2_pytss import ESAPI, ESYS_TR
    from tpm2_pytss.types import TPM2B_DIGEST, TPM2B_PRIVATE, TPM2B_PUBLIC, TPML_PCR_SELECTION

_DEVICE: Final = "device:"
_LAYERS: Final = frozenset({0, 11, 12})  # the TPM itself, and what shares it out: user space's and the kernel's
_LAYER: Final = 16
_FORMAT_ONE: Final = 0x80  # a code that also says which handle, session or parameter
_OF_FORMAT_ONE: Final = 0xBF
_CODE: Final = 0xFFF

# TPM 2.0 Library, part 2, 6.6.3: what the codes of an answer mean here.
MEANINGS: Final = {
    0x921: Cause.LOCKOUT,  # TPM_RC_LOCKOUT
    0x09D: Cause.PCRS,  # TPM_RC_POLICY_FAIL
    0x128: Cause.PCRS,  # TPM_RC_PCR_CHANGED
    0x08E: Cause.OWNER,  # TPM_RC_AUTH_FAIL
    0x0A2: Cause.OWNER,  # TPM_RC_BAD_AUTH
}


class Refusal(Exception):
    """The TPM, or what leads to it, refused."""

    def __init__(self, cause: Cause, said: str = "") -> None:
        super().__init__(said)
        self.cause: Final = cause
        self.said: Final = said


def base_code(answer: int) -> int | None:
    """Take from an answer what went wrong, without where; None where the TPM did not say it."""
    if answer >> _LAYER & 0xFF not in _LAYERS:
        return None
    code = answer & _CODE
    return code & _OF_FORMAT_ONE if code & _FORMAT_ONE else code


def answer(asked: Asked) -> Answered:
    """Seal or open, as was asked."""
    try:
        _check_reachable(asked.tpm)
        with _opened(asked.tpm) as tpm:
            if asked.sealed is not None:
                return Answered(key=_open(tpm, asked.sealed))
            return Answered(sealed=_seal(tpm, asked.key, asked.pcrs))
    except Refusal as refusal:
        return Answered(cause=refusal.cause, said=refusal.said)


def _check_reachable(tpm: str) -> None:
    if not tpm.startswith(_DEVICE):
        return
    device = Path(tpm.removeprefix(_DEVICE))
    if not device.exists():
        raise Refusal(Cause.MISSING)
    if not os.access(device, os.R_OK | os.W_OK):
        raise Refusal(Cause.PERMISSION)


@contextmanager
def _opened(tpm: str) -> Iterator[ESAPI]:
    os.environ["TSS2_LOG"] = "all+none"  # what it says goes into our answer
    try:
        from tpm2_pytss import ESAPI, TSS2_Exception
    except (ImportError, OSError) as error:  # the binding, or the C library that it binds
        raise Refusal(Cause.LIBRARY, str(error)) from None
    try:
        found = ESAPI(tpm)
    except (TSS2_Exception, RuntimeError) as error:
        raise Refusal(Cause.UNREACHABLE, str(error)) from None
    with found:
        yield found


@contextmanager
def _told(*, broken: Cause = Cause.REFUSED) -> Iterator[None]:
    """Turn what the library raises into a refusal.

    Args:
        broken: the cause where the answer is none that `MEANINGS` has.
    """
    from tpm2_pytss import TSS2_Exception

    try:
        yield
    except TSS2_Exception as error:
        code = base_code(error.rc)
        raise Refusal(broken if code is None else MEANINGS.get(code, broken), str(error)) from None


def _seal(tpm: ESAPI, key: bytes, pcrs: tuple[int, ...]) -> TpmSealed:
    from tpm2_pytss import TPM2_SE, TPMA_OBJECT, TPMA_SESSION
    from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMS_SENSITIVE_CREATE

    with ExitStack() as stack, _told():
        parent, name = _storage_key(tpm, stack)
        policy = bytes(_policy(tpm, stack, pcrs)) if pcrs else b""
        session = _session(tpm, stack, parent, TPM2_SE.HMAC, TPMA_SESSION.DECRYPT)
        attributes = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.NODA
        template = TPM2B_PUBLIC.parse(
            "keyedhash",
            objectAttributes=attributes if pcrs else attributes | TPMA_OBJECT.USERWITHAUTH,
            authPolicy=policy,
        )
        sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=key))
        private, public, *_ = tpm.create(parent, sensitive, template, session1=session)
        return TpmSealed(name, public.marshal(), private.marshal(), pcrs)


def _open(tpm: ESAPI, sealed: TpmSealed) -> bytes:
    from tpm2_pytss import TPM2_SE, TPMA_SESSION

    with ExitStack() as stack:
        with _told():
            parent, name = _storage_key(tpm, stack)
        if name != sealed.parent:
            raise Refusal(Cause.ANOTHER)
        with _told(broken=Cause.DAMAGED):
            public, private = _parts(sealed)
            session = _session(tpm, stack, parent, TPM2_SE.HMAC)
            held = tpm.load(parent, private, public, session1=session)
            stack.callback(tpm.flush_context, held)
        with _told():
            kind = TPM2_SE.POLICY if sealed.pcrs else TPM2_SE.HMAC
            using = _session(tpm, stack, parent, kind, TPMA_SESSION.ENCRYPT)
            if sealed.pcrs:
                _satisfy(tpm, using, sealed.pcrs)
            return bytes(tpm.unseal(held, session1=using))


def _parts(sealed: TpmSealed) -> tuple[TPM2B_PUBLIC, TPM2B_PRIVATE]:
    from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC

    public, length = TPM2B_PUBLIC.unmarshal(sealed.public)
    private, other = TPM2B_PRIVATE.unmarshal(sealed.private)
    if (length, other) != (len(sealed.public), len(sealed.private)):
        raise Refusal(Cause.DAMAGED)
    return public, private


def _storage_key(tpm: ESAPI, stack: ExitStack) -> tuple[ESYS_TR, bytes]:
    """Make the storage key of this TPM, which is the same each time, and its name."""
    from tpm2_pytss import ESYS_TR, TPMA_OBJECT
    from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

    attributes = (
        TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.USERWITHAUTH
        | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
    )  # fmt: skip
    template = TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=attributes)
    handle, public, *_ = tpm.create_primary(TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.OWNER)
    stack.callback(tpm.flush_context, handle)
    return handle, bytes(public.get_name())


def _session(tpm: ESAPI, stack: ExitStack, parent: ESYS_TR, kind: int, uses: int = 0) -> ESYS_TR:
    """Begin a session that only the storage key can share.

    Args:
        uses: which parameters are encrypted.
    """
    from tpm2_pytss import ESYS_TR, TPM2_ALG, TPMA_SESSION
    from tpm2_pytss.types import TPMT_SYM_DEF

    session = tpm.start_auth_session(
        tpm_key=parent,
        bind=ESYS_TR.NONE,
        session_type=kind,
        symmetric=TPMT_SYM_DEF.parse("aes128cfb"),
        auth_hash=TPM2_ALG.SHA256,
    )
    stack.callback(tpm.flush_context, session)
    tpm.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION | uses)
    return session


def _policy(tpm: ESAPI, stack: ExitStack, pcrs: tuple[int, ...]) -> TPM2B_DIGEST:
    """Compute the policy by which the PCRs are to be as they are now."""
    from tpm2_pytss import ESYS_TR, TPM2_ALG, TPM2_SE
    from tpm2_pytss.types import TPMT_SYM_DEF

    trial = tpm.start_auth_session(
        tpm_key=ESYS_TR.NONE,
        bind=ESYS_TR.NONE,
        session_type=TPM2_SE.TRIAL,
        symmetric=TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL),
        auth_hash=TPM2_ALG.SHA256,
    )
    stack.callback(tpm.flush_context, trial)
    _satisfy(tpm, trial, pcrs)
    return tpm.policy_get_digest(trial)


def _satisfy(tpm: ESAPI, session: ESYS_TR, pcrs: tuple[int, ...]) -> None:
    from tpm2_pytss.types import TPM2B_DIGEST, TPML_PCR_SELECTION

    selection: TPML_PCR_SELECTION = TPML_PCR_SELECTION.parse(f"sha256:{','.join(map(str, pcrs))}")
    tpm.policy_pcr(session, TPM2B_DIGEST(), selection)


def main() -> None:
    """Answer the question that comes on the standard input."""
    harden()
    asked = codec.decode_as(sys.stdin.buffer.read(), Asked)
    sys.stdout.buffer.write(codec.encode(answer(asked)))


if __name__ == "__main__":
    main()
