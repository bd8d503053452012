"""What each Python that a test starts does before anything else: its passwords cost a twentieth.

Argon2id at its real cost was a fifth of all the processor that the suite used. The demo's test, and whatever derives in
the test's own process, pay the whole. LNH_TEST_VERSION has it take itself for another version of the product.
"""

from __future__ import annotations

import contextlib
import os

with contextlib.suppress(ImportError):  # a Python without this product derives nothing
    import lnh_common
    from lnh_common import limits

    lnh_common.VERSION = os.environ.get("LNH_TEST_VERSION", lnh_common.VERSION)
    limits.CREDENTIAL_ARGON2 = (8 * limits.KIB, 1, 1)  # type: ignore[misc]
    limits.ACTIVATION_ARGON2 = limits.DOMAIN_ARGON2 = (8 * limits.KIB, 1, 4)  # type: ignore[misc]
