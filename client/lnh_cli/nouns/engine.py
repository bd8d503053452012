"""`lnh engine`: the etcd that can order a cluster's writes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Output, noun, verb
from lnh_common.errors import ConfigurationInvalid, Internal, LnhError, NotPossible

app = noun("engine", "The etcd that can order a cluster's writes.")

_OR_A_FILE: Final = "name the etcd: --endpoint and --prefix (all options: --help), or --file with a table [engine]"
_CHECK: Final = "lnh_services.store.etcd_client"  # a process of the services: no module of theirs is imported here


@dataclasses.dataclass(kw_only=True)
class EtcdOptions(Output):
    """Options that name an etcd: a file with a table `[engine]`, single settings of it, or both."""

    file: Annotated[Path | None, typer.Option(help="TOML file with a table [engine].", callback=files.readable)] = None
    endpoint: Annotated[list[str] | None, typer.Option(help="https://host:port of a node; once for each.")] = None
    prefix: Annotated[str | None, typer.Option(help="Of all keys of the cluster, such as lnh/prod/.")] = None
    ca: Annotated[Path | None, typer.Option(help="CAs of the nodes' certificates, PEM.", callback=files.readable)] = (
        None
    )
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate of this client, PEM.", callback=files.readable)
    ] = None
    key: Annotated[Path | None, typer.Option(help="Its key, PEM, mode 0600.", callback=files.readable)] = None
    etcd_user: Annotated[str | None, typer.Option(help="etcd's user, where not the certificate's CN.")] = None
    password_file: Annotated[
        Path | None, typer.Option(help="File with this user's password, mode 0600.", callback=files.readable)
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return the file's settings, and over them those of the line, as plain values; raises ConfigurationInvalid."""
        from lnh_common import etcd

        given: dict[str, Any] = {
            "endpoints": self.endpoint,
            "prefix": self.prefix,
            "ca": self.ca,
            "certificate": self.certificate,
            "key": self.key,
            "user": self.etcd_user,
            "password_file": self.password_file,
        }
        found = etcd.read(self.file) if self.file is not None else {}
        found |= {name: str(value) if isinstance(value, Path) else value for name, value in given.items() if value}
        if self.file is not None:
            etcd.settings(found, str(self.file))
            return found
        try:
            etcd.settings(found, "options")
        except ConfigurationInvalid as error:
            raise ConfigurationInvalid(error.message, {"advice": _OR_A_FILE}) from None
        return found


@verb(app, "check", EtcdOptions)
def check(options: EtcdOptions) -> None:
    """Look at an etcd, and say what is wrong with it and what to do; nothing in it is changed.

    Ends with 0 when nothing failed, with 1 when something did; a warning is no failure.
    """
    settings = options.settings()
    _check_installed()
    options.rows(findings := _findings(settings), "check", "where", "state", "what", "do")
    if any(each["state"] == "failed" for each in findings):
        raise typer.Exit(terminal.REFUSED)


def _findings(settings: dict[str, Any]) -> list[dict[str, str]]:
    words = [sys.executable, "-m", _CHECK]
    done = subprocess.run(words, input=json.dumps(settings).encode(), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Internal(f"{_CHECK} ended with {done.returncode}")
    told = json.loads(done.stdout)
    if "error" in told:
        raise LnhError.from_wire(told["error"])
    found: list[dict[str, str]] = told["findings"]
    return found


def _check_installed() -> None:
    """Raise NotPossible where what asks an etcd is not installed."""
    from importlib.util import find_spec

    missing = [name for name, top in (("grpcio", "grpc"), ("protobuf", "google")) if find_spec(top) is None]
    if missing:
        raise NotPossible(f"not installed: {', '.join(missing)}", {"advice": "pip install 'lnh[etcd]'"})
