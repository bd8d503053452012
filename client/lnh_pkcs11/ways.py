"""The ways in, and which mechanisms each passes: p11-kit's client refuses by itself what its version does not know."""

from __future__ import annotations

import enum
from typing import Final

from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_pkcs11.calls import MODULE


class Way(enum.Enum):
    """A way in, by the version that was agreed on.

    Attributes:
        own: whether it is the module.
    """

    P11_KIT_0 = "p11-kit 0.24"
    P11_KIT_1 = "p11-kit 0.25.0 to 0.25.5"
    P11_KIT_2 = "p11-kit from 0.25.6 on"
    MODULE = "the module"

    def __init__(self, label: str) -> None:
        self.own: bool = label == "the module"

    @property
    def nests(self) -> bool:
        """Tell whether its client takes attributes within attributes; one of before would write where nobody said."""
        return self in {Way.P11_KIT_2, Way.MODULE}

    def passes(self, mechanism: Mechanism) -> bool:
        """Tell whether a client of this way passes the mechanism."""
        return self.own or mechanism in PASSED[self]


P11_KIT: Final = (Way.P11_KIT_0, Way.P11_KIT_1, Way.P11_KIT_2)


def way_of(first: int) -> Way | None:
    """Return the way in that a client's first byte says; None for one that nobody speaks."""
    if first == MODULE:
        return Way.MODULE
    return P11_KIT[min(first, len(P11_KIT) - 1)] if first < MODULE else None


_M = Mechanism
# Mechanisms that p11-kit knows to have no parameters, so that nothing of them travels.
_BARE_0: Final = frozenset(
    {
        _M.RSA_PKCS_KEY_PAIR_GEN,
        _M.RSA_PKCS,
        _M.SHA256_RSA_PKCS,
        _M.SHA384_RSA_PKCS,
        _M.SHA512_RSA_PKCS,
        _M.EC_KEY_PAIR_GEN,
        _M.ECDSA,
        _M.GENERIC_SECRET_KEY_GEN,
        _M.AES_KEY_GEN,
        _M.AES_ECB,
        _M.SHA256,
        _M.SHA256_HMAC,
        _M.SHA384,
        _M.SHA384_HMAC,
        _M.SHA512,
        _M.SHA512_HMAC,
    }
)
BARE: Final = _BARE_0 | {_M.ECDSA_SHA256, _M.ECDSA_SHA384, _M.ECDSA_SHA512, _M.AES_CMAC, _M.SHA224}
_WITH_0: Final = frozenset({_M.RSA_PKCS_PSS, _M.RSA_PKCS_OAEP})
_WITH: Final = _WITH_0 | {
    _M.SHA256_RSA_PKCS_PSS,
    _M.SHA384_RSA_PKCS_PSS,
    _M.SHA512_RSA_PKCS_PSS,
    _M.ECDH1_DERIVE,
    _M.AES_CBC,
    _M.AES_CBC_PAD,
    _M.AES_CTR,
    _M.AES_GCM,
    _M.SHA256_HMAC_GENERAL,
    _M.SHA384_HMAC_GENERAL,
    _M.SHA512_HMAC_GENERAL,
}
PASSED: Final[dict[Way, frozenset[Mechanism]]] = {
    Way.P11_KIT_0: _BARE_0 | _WITH_0,
    Way.P11_KIT_1: BARE | _WITH,
    Way.P11_KIT_2: BARE | _WITH,
}
