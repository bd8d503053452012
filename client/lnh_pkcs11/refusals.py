"""What a request ends with that is not done: a return value of PKCS#11, with words for the log."""

from __future__ import annotations

from lnh_common.errors import LnhError
from lnh_pkcs11.numbers import CKR


class Refused(Exception):
    """A request is refused.

    Attributes:
        ckr: what the application is answered.
    """

    def __init__(self, ckr: CKR, why: str = "") -> None:
        super().__init__(why or ckr.name)
        self.ckr = ckr


def ckr_of(error: LnhError) -> CKR:
    """Return the value that an error of the product is answered with; each error's class names it."""
    return CKR[error.ckr.removeprefix("CKR_")]
