"""A KMS plugin as a process of its own, and a client that protoc generates from the interface, as an API server's is."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

import stubs

OPTIONS = (("grpc.default_authority", "localhost"),)


@functools.cache
def generated() -> ModuleType:
    """What protoc makes of the interface for clients; it uses the messages of `lnh_kms`."""
    with tempfile.TemporaryDirectory() as place:
        stubs.protoc("client/lnh_kms/api.proto", Path(place), "grpc_python")
        found = importlib.util.spec_from_file_location("api_pb2_grpc", Path(place) / "lnh_kms" / "api_pb2_grpc.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module


def stub(channel: Any) -> Any:
    """The generated client, over a blocking channel or one of asyncio."""
    return generated().KeyManagementServiceStub(channel)


@dataclass
class Running:
    """A plugin that runs."""

    socket: Path
    process: subprocess.Popen[bytes]
    log: Path

    @contextmanager
    def client(self) -> Iterator[Any]:
        with grpc.insecure_channel(f"unix:{self.socket}", OPTIONS) as channel:
            yield stub(channel)

    def events(self) -> list[dict[str, Any]]:
        """What the plugin has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def running(client: Path, password: Path, place: Path, label: str) -> Iterator[Running]:
    """A plugin of the keyring `payments`.

    Args:
        client: the directory of a registered client.
        password: the file with the KRCO's.
        place: of its socket and its log.
        label: of its keys.
    """
    log, socket = place / "kms.log", place / "kms.sock"
    names = ("kms", "serve", "-k", "payments", "--label", label, "--timeout", "20")
    words = (*names, "--socket", str(socket), "--password-file", str(password))
    environment = {**os.environ, "LNH_CONFIG": str(client)}
    with (
        log.open("ab") as told,
        subprocess.Popen(
            [sys.executable, "-m", "lnh_cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline().decode()  # once clients can connect; nothing if it ended before
            assert said == f"serves {socket}\n", said + log.read_text()
            yield Running(socket, process, log)
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
