"""Makes a member directory: its settings, its directories, the CURVE keys of its ports."""

from __future__ import annotations

import os
from pathlib import Path

from lnh_common.bus.curve import KeyPair
from lnh_common.errors import AlreadyDone
from lnh_services import configuration
from lnh_services.configuration import Settings
from lnh_services.durable import replace_file
from lnh_services.paths import MemberDirectory


def initialise_member(directory: MemberDirectory, settings: Settings) -> None:
    """Make the directory of a new member; member.toml comes last, so that a crash before it can be repeated.

    Raises AlreadyDone when the directory has a member.toml, and ConfigurationInvalid when its path is too long.
    """
    if directory.settings.exists():
        raise AlreadyDone(f"{directory.settings} exists: this is a member's directory already")
    old = os.umask(0o077)
    try:
        directory.create()
        _make_key(directory.client_keys, directory.client_public)
        _make_key(directory.member_keys, directory.member_public)
        replace_file(directory.settings, configuration.dump(settings).encode())
    finally:
        os.umask(old)


def _make_key(secret: Path, public: Path) -> None:
    if not secret.exists():
        KeyPair.generate().save(secret)
    replace_file(public, KeyPair.load(secret).public + b"\n")
