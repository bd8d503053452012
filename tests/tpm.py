"""TPMs for tests: `swtpm`, each with a state and ports of its own, and what an owner of one does to it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from waits import wait_until


def _missing() -> str:
    if shutil.which("swtpm") is None:
        return "no swtpm on this machine"
    if ctypes.util.find_library("tss2-tcti-swtpm") is None:
        return "nothing by which tpm2-tss reaches swtpm (libtss2-tcti-swtpm0)"
    if importlib.util.find_spec("tpm2_pytss") is None:
        return "tpm2-pytss is not installed (lnh[tpm])"
    return ""


MISSING = _missing()


@dataclass(frozen=True)
class SoftwareTpm:
    """One that runs; `tcti` is how it is reached."""

    port: int

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Its ESAPI."""
        from tpm2_pytss import ESAPI

        with ESAPI(self.tcti) as found:
            yield found

    def extend(self, pcr: int) -> None:
        """Boot something else: measure it into a PCR."""
        from tpm2_pytss import ESYS_TR, TPM2_ALG
        from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        measured = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=b"m" * 32))
        with self.opened() as found:
            found.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES([measured]))

    def clear(self) -> None:
        """Make it as if it were another one."""
        from tpm2_pytss import ESYS_TR

        with self.opened() as found:
            found.clear(ESYS_TR.LOCKOUT)

    def set_owner_password(self, password: bytes, before: bytes = b"") -> None:
        from tpm2_pytss import ESYS_TR

        with self.opened() as found:
            found.tr_set_auth(ESYS_TR.OWNER, before)
            found.hierarchy_change_auth(ESYS_TR.OWNER, password)

    def lock_out(self) -> None:
        """Try wrong passwords at what it guards until it takes no more."""
        from tpm2_pytss import TPMA_OBJECT, TSS2_Exception
        from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMS_SENSITIVE_CREATE

        with self.opened() as found:
            found.dictionary_attack_parameters(1, 1000, 1000)
            parent, *_ = found.create_primary(TPM2B_SENSITIVE_CREATE(), "ecc256:aes128cfb")
            attributes = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.USERWITHAUTH
            template = TPM2B_PUBLIC.parse("keyedhash", objectAttributes=attributes)
            sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=b"guarded", userAuth=b"password"))
            private, public, *_ = found.create(parent, sensitive, template)
            held = found.load(parent, private, public)
            answers = []
            for guess in (b"wrong", b"other"):
                found.tr_set_auth(held, guess)
                try:
                    found.unseal(held)
                except TSS2_Exception as error:
                    answers.append(error.rc)
            found.flush_context(held)
            found.flush_context(parent)
        assert answers[-1] == 0x921, f"TPM_RC_LOCKOUT, and not {answers}"


@contextmanager
def running() -> Iterator[SoftwareTpm]:
    """Run one; its state is thrown away with it."""
    with tempfile.TemporaryDirectory(prefix="lnh-tpm-") as state:
        with two_ports() as (commands, _):
            port = commands.getsockname()[1]
        words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"]
        words += ["--server", f"type=tcp,port={port},bindaddr=127.0.0.1"]
        words += ["--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
            try:
                made = SoftwareTpm(port)
                wait_until(lambda: _listens(port + 1), "the TPM")
                yield made
            finally:
                process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def two_ports() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets at a port and at the next one: a TPM's commands, and what controls it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            try:
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
            except (OSError, OverflowError):
                continue
            yield first, second
            return
