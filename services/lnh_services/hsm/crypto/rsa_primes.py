"""Tests in a process of its own whether the parts of an RSA key belong together, and its primes are some.

The library lets nothing else of a process run while it tests primes, not even another thread: a worker that tested a
key of 8192 bits by itself would answer nobody for ten seconds, and lose its lease. The key comes through a pipe, to a
process that is hardened as a worker is, and ends with it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from cryptography.hazmat.primitives.serialization import load_der_private_key

from lnh_common.errors import Busy
from lnh_services.hsm.crypto.process_hardening import child_environment, harden

_SECONDS: Final = 120.0  # a key of 8192 bits takes ten on a slow machine; what stands still is not waited for
_SOUND: Final = 0
_UNSOUND: Final = 3


def is_sound(value: bytes) -> bool:
    """Tell whether a private key is one; waits for the process that tests it.

    Args:
        value: DER of PKCS#8, which the library reads. The sizes of its parts bound how long it takes.

    Raises Busy where there could be no process, or it did not end in time; RuntimeError where it ended otherwise.
    """
    command = (sys.executable, "-m", __name__)
    try:
        ended = subprocess.run(
            command, input=value, stdout=subprocess.DEVNULL, env=child_environment(), check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        raise Busy("the primes of the key were not tested: this machine has no room or time for a process") from None
    if ended.returncode not in (_SOUND, _UNSOUND):
        raise RuntimeError(f"the process that tests an RSA key ended with {ended.returncode}")
    return ended.returncode == _SOUND


def main() -> None:
    """Test the key that comes on the standard input, and tell by how the process ends."""
    harden()
    try:
        load_der_private_key(sys.stdin.buffer.read(), None)
    except ValueError:
        sys.exit(_UNSOUND)


if __name__ == "__main__":
    main()
