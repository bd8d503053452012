"""The hsm's worlds: a pure worker, a registered client, and its keyring with the KRCO logged in; and an appliance."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnh_common.messages.session import Credential, Role
from models.console import OneAppliance
from models.worker import KRCO, Client, World, make_keyring


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Client:
    return Client(world, world.worker()).register()


@pytest.fixture
def keyring(client: Client) -> bytes:
    keyring = make_keyring(client)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    return keyring


@pytest.fixture
def appliance(tmp_path: Path) -> OneAppliance:
    return OneAppliance(tmp_path)
