"""What a request ends with that is not done: a return value of PKCS#11, with words for the log."""

from __future__ import annotations

from typing import Final

from lnh_common.errors import DataLength, LnhError, ObjectUnknown
from lnh_pkcs11.numbers import CKR


class Refused(Exception):
    """A request is refused.

    Attributes:
        ckr: what the application is answered.
    """

    def __init__(self, ckr: CKR, why: str = "") -> None:
        super().__init__(why or ckr.name)
        self.ckr = ckr


_FORMS: Final = ("", "Final", "Message", "MessageNext")
_USES: Final = {f"{use}{form}" for use in ("Encrypt", "Decrypt", "Sign", "Verify") for form in _FORMS}
_DECRYPTIONS: Final = {"Decrypt", "DecryptUpdate", "DecryptFinal", "DecryptMessage", "DecryptMessageNext"}
# Where PKCS#11 has another value for the same in some of its calls.
_IN_CALLS: Final[tuple[tuple[type[LnhError], set[str], CKR], ...]] = (
    (DataLength, _DECRYPTIONS, CKR.ENCRYPTED_DATA_LEN_RANGE),
    (DataLength, {"UnwrapKey"}, CKR.WRAPPED_KEY_LEN_RANGE),
    (ObjectUnknown, _USES, CKR.KEY_HANDLE_INVALID),
)


def ckr_of(error: LnhError, call: str = "") -> CKR:
    """Return the value that an error of the product is answered with; each error's class names it.

    Args:
        call: that ended so, without `C_`.
    """
    for kind, calls, ckr in _IN_CALLS:
        if call in calls and isinstance(error, kind):
            return ckr
    return CKR[error.ckr.removeprefix("CKR_")]
