"""Where the gateway's socket and the module are, and how systemd starts the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ADDRESS: Final = "LNH_PKCS11_ADDRESS"
"""The variable by which the module, and `lnh pkcs11`, are told of another socket."""
P11_KIT_ADDRESS: Final = "P11_KIT_SERVER_ADDRESS"
MODULE: Final = Path(__file__).parent / "module" / "lnh-pkcs11.so"
_UNIT: Final = Path(__file__).with_name("lnh-pkcs11.service")
_P11_KIT_MODULES: Final = ("/usr/lib/*/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/local/lib/pkcs11")


def default_socket() -> Path:
    """Return the socket's path: in the user's runtime directory, where the module looks for it."""
    if given := os.environ.get(ADDRESS):
        return Path(given)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return Path(runtime) / "lnh" / "pkcs11.sock"


def p11_kit_client() -> Path | None:
    """Find p11-kit's client module; None where it is not installed."""
    found = [path for place in _P11_KIT_MODULES for path in Path("/").glob(f"{place[1:]}/p11-kit-client.so")]
    return found[0] if found else None


def variables(socket: Path) -> dict[str, str]:
    """Return the variables that tell applications where the gateway is, and which modules they load."""
    found = {ADDRESS: str(socket), P11_KIT_ADDRESS: f"unix:path={socket}"}
    if MODULE.exists():
        found["LNH_PKCS11_MODULE"] = str(MODULE)
    client = p11_kit_client()
    if client is not None:
        found["LNH_PKCS11_CLIENT"] = str(client)
    return found


def unit(program: str) -> str:
    """Return a systemd unit of this user's that serves.

    Args:
        program: the path of `lnh`.
    """
    lines = _UNIT.read_text().replace("@LNH@", _quoted(program)).splitlines()
    configuration = os.environ.get("LNH_CONFIG")
    if configuration:
        lines.insert(lines.index("[Service]") + 1, f"Environment={_quoted(f'LNH_CONFIG={configuration}')}")
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """Quote a word as units have it, where `%` begins a specifier and `$` a variable."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
