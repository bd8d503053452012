"""What each Python that a test starts does before anything else: its passwords cost a twentieth.

Argon2id at its real cost was a fifth of all the processor that the suite used. The demo's test, and whatever derives in
the test's own process, pay the whole.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):  # a Python without this product derives nothing
    from lnh_common import limits

    limits.CREDENTIAL_ARGON2 = (8 * limits.KIB, 1, 1)  # type: ignore[misc]
    limits.ACTIVATION_ARGON2 = limits.DOMAIN_ARGON2 = (8 * limits.KIB, 1, 4)  # type: ignore[misc]
