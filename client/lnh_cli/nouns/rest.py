"""`lnh rest`: the cluster over HTTPS, for clients that know REST."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files
from lnh_cli.support.command import Output, noun, verb
from lnh_common.errors import NotPossible

app = noun("rest", "The cluster over HTTPS, for clients that know REST.")


@dataclasses.dataclass(kw_only=True)
class ServeOptions(Output):
    """Options of the service: the cluster it is a client of, and where it listens."""

    cluster: Annotated[str | None, typer.Option("--cluster", "-c", envvar="LNH_CLUSTER", help="Index or label.")] = None
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8443
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate and those above it, PEM.", callback=files.readable)
    ] = None
    key: Annotated[Path | None, typer.Option(help="Its key, PEM, mode 0600.", callback=files.readable)] = None
    client_ca: Annotated[
        Path | None,
        typer.Option(help="CAs, PEM, of which clients must have a certificate.", callback=files.readable),
    ] = None
    plain_http: Annotated[bool, typer.Option("--plain-http", help="No HTTPS; at a loopback address only.")] = False


@verb(app, "serve", ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve until ended by SIGTERM or Ctrl-C, as the registered client that this machine is."""
    _check_installed()
    from lnh_rest import serving

    address = serving.Address(options.host, options.port, options.certificate, options.key, options.client_ca)
    serving.run(options.cluster, address, plain=options.plain_http)


@verb(app, "openapi", Output)
def openapi(options: Output) -> None:
    """Print the OpenAPI document."""
    _check_installed()
    from lnh_rest import openapi as made

    options.show_json(made.document())


def _check_installed() -> None:
    """Raise NotPossible where what the service needs beside the product is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        advice = {"advice": "pip install 'lnh[rest]'"}
        raise NotPossible(f"not installed: {', '.join(missing)}", advice)
