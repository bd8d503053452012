"""The recipes of docs/pkcs11-recipes.md, as commands that a shell carries out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "pkcs11-recipes.md"
SECONDS: Final = 120
_CONFIGURATION: Final = "The configuration of OpenSSL's engine"
_SSHD: Final = "/usr/sbin/sshd"  # runs only under its whole path
_SECTION: Final = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK: Final = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """One application.

    Args:
        heading: of the section of the page.
        needs: commands, each of a Debian package.
        prepare: what is there before the user's first line, in bash.
        not_by_p11_kit: why p11-kit's client of Debian 12 (0.24.1) cannot carry it; empty where it can.
    """

    heading: str
    needs: tuple[str, ...]
    prepare: str = ""
    not_by_p11_kit: str = ""

    @property
    def commands(self) -> str:
        """The lines of the page; with those of the engine's configuration first, where they use it."""
        lines = blocks()[self.heading]
        return blocks()[_CONFIGURATION] + lines if "openssl.cnf" in lines else lines

    def missing(self) -> list[str]:
        """The commands that this machine does not have."""
        return [each for each in self.needs if shutil.which(each) is None and not Path(each).exists()]


_SSH_SERVER: Final = f"""
ssh-keygen -q -t ed25519 -N '' -f host_key
cat > sshd_config <<END
ListenAddress 127.0.0.1
Port $PORT
HostKey $PWD/host_key
AuthorizedKeysFile $PWD/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
END
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
{_SSHD} -D -e -f sshd_config 2> sshd.log &
printf '[127.0.0.1]:%s %s\\n' "$PORT" "$(cut -d' ' -f1,2 host_key.pub)" > known_hosts
printf '#!/bin/sh\\nprintf "%%s\\\\n" "$PIN"\\n' > askpass
chmod 700 askpass
export SSH_ASKPASS=$PWD/askpass SSH_ASKPASS_REQUIRE=force
host="$(id -un)@127.0.0.1"
ssh_options=(-F none -p "$PORT" -o UserKnownHostsFile=known_hosts -o StrictHostKeyChecking=yes)
until (: < "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; do sleep 0.05; done
"""

_ENGINE: Final = ("openssl", "pkcs11-tool")
RECIPES: Final = (
    Recipe("OpenSC: pkcs11-tool", _ENGINE),
    Recipe("OpenSSL: a CA, a server's certificate and a TLS server", (*_ENGINE, "curl")),
    Recipe("OpenSSH: log in with a key of the cluster", ("ssh", _SSHD, "pkcs11-tool"), _SSH_SERVER),
    Recipe("OpenSSH: the agent", ("ssh", "ssh-agent", _SSHD, "pkcs11-tool"), _SSH_SERVER),
    Recipe("GnuTLS: p11tool, certtool and a server", ("p11tool", "certtool", "gnutls-serv", "pkcs11-tool", "curl")),
    Recipe("nginx", (*_ENGINE, "nginx", "curl")),
    Recipe("Java: keytool and jarsigner", ("keytool", "jarsigner", "jar")),
    Recipe("osslsigncode: a Windows program", (*_ENGINE, "osslsigncode"), 'cp "$PROGRAM" program.exe\n'),
    Recipe("Python: python-pkcs11", ("python",)),
    Recipe("Python: PyKCS11", ("python",)),
)


def blocks() -> dict[str, str]:
    """The commands below each heading of the page."""
    found = {heading: "".join(_BLOCK.findall(text)) for heading, text in _SECTION.findall(PAGE.read_text())}
    return {heading: commands for heading, commands in found.items() if commands}


def cook(recipe: Recipe, directory: Path, environment: Mapping[str, str]) -> str:
    """Carry out a recipe in a directory of its own; returns what it said, and fails with it where a command failed.

    Everything that it started ends with it.
    """
    (directory / "some-program.exe").write_bytes(small_program())
    script = f"set -euo pipefail\n{recipe.prepare}{recipe.commands}"
    own = {**environment, "PORT": str(_free_port()), "PROGRAM": str(directory / "some-program.exe")}
    with subprocess.Popen(
        ["bash", "-c", script], cwd=directory, env=own, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as shell, _ended(shell):  # fmt: skip
        try:
            code = shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        _end(shell)  # what it left in the background holds the pipe open
        assert shell.stdout is not None
        said = shell.stdout.read()
    assert code == 0, f"{recipe.heading} ended with {code}:\n{said}"
    return said


@contextlib.contextmanager
def _ended(shell: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        _end(shell)


def _end(shell: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def small_program() -> bytes:
    """The smallest file that is a Windows program (PE32) with one section: what is signed.

    Source: Microsoft's "PE Format", of 64-byte DOS header, COFF header, optional header, section table.
    """
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x14C, 1, 0, 0, 0, 224, 0x0102)
    optional = struct.pack("<HBBIIIIII", 0x10B, 1, 0, 512, 0, 0, 0x1000, 0x1000, 0x2000)
    optional += struct.pack("<IIIHHHHHH", 0x400000, 0x1000, 512, 4, 0, 0, 0, 4, 0)
    optional += struct.pack("<IIIIHHIIIIII", 0, 0x2000, 512, 0, 3, 0, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    optional += bytes(16 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".text", 512, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + section).ljust(512, b"\0") + b"\xc3".ljust(512, b"\0")
