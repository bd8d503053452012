"""`lnh pkcs11`: the gateway for applications that speak PKCS#11."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Output, noun, verb

if TYPE_CHECKING:
    from lnh_pkcs11.application import Token

app = noun("pkcs11", "The gateway for applications that speak PKCS#11.")

Socket = Annotated[Path | None, typer.Option(help="The gateway's socket; else in the user's runtime directory.")]


@verb(app, "serve", Output)
def serve(
    options: Output,
    socket: Socket = None,
    group: Annotated[
        str | None, typer.Option(help="A group whose members are let in too; else this user alone is.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds that an operation may take.")] = 10.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say on stderr what is refused, and why.")] = False,
) -> None:
    """Serve applications until Ctrl-C or SIGTERM: each keyring that this client may see is a token."""
    import logging

    from lnh_pkcs11 import places
    from lnh_pkcs11.service import run

    path = socket or places.default_socket()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lnh.pkcs11").setLevel(logging.INFO if verbose else logging.WARNING)

    def ready() -> None:
        options.say(f"serves {path}", socket=str(path))

    asyncio.run(run(path, _group(group), timeout, ready))


def _group(name: str | None) -> int | None:
    import grp

    from lnh_common.errors import NameUnknown

    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NameUnknown(
            f"no group {name!r} on this machine", {"advice": "name one that getent group shows"}
        ) from None


@verb(app, "env", Output)
def env(options: Output, socket: Socket = None) -> None:
    """Print the lines that tell applications of this shell where the gateway is: eval "$(lnh pkcs11 env)"."""
    from lnh_pkcs11 import places

    variables = places.variables(socket or places.default_socket())
    if options.json:
        options.show_json(variables)
        return
    for name, value in variables.items():
        terminal.echo(f"export {name}={shlex.quote(value)}")


@verb(app, "unit", Output)
def unit(options: Output) -> None:
    """Print a systemd unit that serves: lnh pkcs11 unit > ~/.config/systemd/user/lnh-pkcs11.service."""
    from lnh_cli.support.programs import program
    from lnh_pkcs11 import places

    text = places.unit(str(Path(program("lnh")).absolute()))
    if options.json:
        options.show_json({"unit": text})
        return
    for line in text.splitlines():
        terminal.echo(line)


@verb(app, "slots", Output)
def slots(options: Output) -> None:
    """List the slots that a gateway of this client has, and the tokens in them."""
    from lnh_pkcs11.keyrings import Keyrings

    async def listed() -> list[dict[str, Any]]:
        keyrings = Keyrings()
        try:
            return [_row(token) for token in await keyrings.listed()]
        finally:
            await keyrings.close()

    options.rows(asyncio.run(listed()), "slot", "token", "serial", "cluster")


def _row(token: Token) -> dict[str, Any]:
    from lnh_pkcs11 import information

    return {
        "slot": token.slot,
        "token": token.keyring.label,
        "serial": information.serial(token.keyring.id),
        "cluster": token.cluster.label,
    }
