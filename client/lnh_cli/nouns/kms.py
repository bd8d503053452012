"""`lnh kms`: the KMS plugin of Kubernetes' API servers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Output, noun, verb
from lnh_common.errors import ConfigurationInvalid, NotPossible

app = noun("kms", "The KMS plugin (v2) of Kubernetes' API servers.")

_SOCKET = Path("/run/lnh/kms.sock")

SocketOption = Annotated[Path, typer.Option(help="The plugin's Unix socket.")]


@dataclasses.dataclass(kw_only=True)
class ServeOptions(Output):
    """Options of the plugin: which keys it uses, and where it listens."""

    keyring: Annotated[str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.")]
    cluster: Annotated[str | None, typer.Option("--cluster", "-c", envvar="LNH_CLUSTER", help="Index or label.")] = None
    label: Annotated[str, typer.Option(help="Of the AES keys: the newest encrypts, all decrypt.")] = "kubernetes"
    socket: SocketOption = _SOCKET
    password_file: Annotated[
        Path | None, typer.Option(help="File with the KRCO's password.", callback=files.readable)
    ] = None
    timeout: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds that a call may take; fewer than the API server waits.")
    ] = 2.5
    verbose: Annotated[bool, typer.Option("--verbose", help="Log calls to Decrypt and Status too.")] = False


@verb(app, "serve", ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve API servers of this machine until Ctrl-C or SIGTERM, as the keyring's KRCO."""
    _check_installed()
    import logging

    from lnh_common.events import write_to_stderr
    from lnh_kms.serving import Settings, run

    write_to_stderr(logging.DEBUG if options.verbose else logging.INFO)
    settings = Settings(options.cluster, options.keyring, options.label, options.socket, options.timeout)

    def ready() -> None:
        options.say(f"serves {options.socket}", socket=str(options.socket))

    asyncio.run(run(settings, _asking(options.keyring, options.password_file), ready))


def _asking(keyring: str, file: Path | None) -> Callable[[], str]:
    """Return what gives the password at each login: from its file, so that a new one is found there, or from memory."""
    from lnh_common.secret import Secret

    path = terminal.secret_file("KRCO", file)
    first = Secret(terminal.read_secret("KRCO", file, what=f"krco password of {keyring}").encode())
    if path is None:
        return lambda: first.reveal().decode()
    found = path

    def read() -> str:
        try:
            return terminal.secret_in(found)
        except (OSError, UnicodeDecodeError):
            raise ConfigurationInvalid(
                f"{found}, with the KRCO's password, cannot be read", {"advice": "put the file back"}
            ) from None

    return read


@verb(app, "status", Output)
def status(
    options: Output,
    socket: SocketOption = _SOCKET,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait.")] = 3.0,
) -> None:
    """Ask a plugin what it tells API servers: its health, and the id of the key that encrypts."""
    _check_installed()
    from lnh_kms.plugin import OK
    from lnh_kms.serving import ask_status

    healthz, key_id = asyncio.run(ask_status(socket, timeout))
    options.record({"healthz": healthz, "key_id": key_id})
    if healthz != OK:
        raise typer.Exit(terminal.REFUSED)


def _check_installed() -> None:
    """Raise NotPossible where what the plugin needs beside the product is not installed."""
    from importlib.util import find_spec

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log is no JSON, and what matters is told by an error
    missing = [name for name in ("grpc", "google.protobuf") if not _is_there(find_spec, name)]
    if missing:
        raise NotPossible(f"not installed: {', '.join(missing)}", {"advice": "pip install 'lnh[kms]'"})


def _is_there(find: Callable[[str], object], name: str) -> bool:
    try:
        return find(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
