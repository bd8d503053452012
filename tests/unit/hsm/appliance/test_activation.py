"""Another activation secret, or shares of one: what activates the HSM afterwards, and after a crash at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from lnh_common import errors
from lnh_common.messages import console
from lnh_services import durable
from models.console import ACTIVATION, SO, OneAppliance, OneTpm

NEW = b"another secret"


@pytest.fixture
def appliance(tmp_path: Path) -> OneAppliance:
    made = OneAppliance(tmp_path)
    asyncio.run(made.cluster())
    return made


def drawn(appliance: OneAppliance, threshold: int = 2, count: int = 3) -> tuple[str, ...]:
    asked = console.DrawShares(so_password=SO, threshold=threshold, count=count)
    made = asyncio.run(appliance.ask(console.HSM_DRAW_SHARES, asked))
    assert isinstance(made, console.DrawnShares)
    return made.shares


def set_(
    appliance: OneAppliance,
    activation: bytes = b"",
    shares: tuple[str, ...] = (),
    so: str = SO,
    tpm: bool = False,
    pcrs: tuple[int, ...] = (),
) -> None:
    asked = console.SetActivation(so_password=so, activation=activation, shares=shares, tpm=tpm, pcrs=pcrs)
    asyncio.run(appliance.ask(console.HSM_SET_ACTIVATION, asked))


def activates(appliance: OneAppliance, activation: bytes = b"", shares: tuple[str, ...] = ()) -> bool:
    """Whether this opens the HSM after a restart."""
    appliance.restart()
    try:
        asyncio.run(appliance.ask(console.HSM_ACTIVATE, console.Activate(activation=activation, shares=shares)))
    except (errors.ActivationFailed, errors.ArgumentInvalid):
        return False
    return True


def needed(appliance: OneAppliance) -> int:
    view = asyncio.run(appliance.ask(console.HSM_SHOW))
    assert isinstance(view, console.HsmView)
    return view.shares_needed


def test_another_secret_replaces_the_one_before(appliance: OneAppliance) -> None:
    before = appliance.vault.opened
    set_(appliance, NEW)
    assert not activates(appliance, ACTIVATION)
    assert activates(appliance, NEW)
    assert appliance.vault.opened == before
    assert needed(appliance) == 0


def test_enough_shares_activate_and_nothing_else_does(appliance: OneAppliance) -> None:
    before, handed = appliance.vault.opened, drawn(appliance)
    assert activates(appliance, ACTIVATION), "nothing is changed by drawing them"
    handed = drawn(appliance)
    set_(appliance, shares=handed[:2])
    appliance.restart()
    assert needed(appliance) == 2, "it is told before anything is open"
    for wrong in (handed[:1], (handed[0], handed[0]), ()):
        assert not activates(appliance, shares=wrong)
    assert not activates(appliance, ACTIVATION)
    assert activates(appliance, shares=handed[1:])
    assert appliance.vault.opened == before
    with pytest.raises(errors.ArgumentInvalid, match="2 open it"):
        asyncio.run(appliance.ask(console.HSM_DEACTIVATE, console.Activate(shares=handed[2:])))
    asyncio.run(appliance.ask(console.HSM_DEACTIVATE, console.Activate(shares=handed[::2])))
    assert appliance.vault.state is None


def test_shares_that_were_drawn_anew_replace_earlier_ones(appliance: OneAppliance) -> None:
    first = drawn(appliance)
    set_(appliance, shares=first)
    second = drawn(appliance)
    with pytest.raises(errors.ArgumentInvalid, match="is of set"):
        set_(appliance, shares=first)
    set_(appliance, shares=second)
    assert not activates(appliance, shares=first)
    assert activates(appliance, shares=second[:2])
    set_(appliance, NEW)
    assert not activates(appliance, shares=second)
    assert activates(appliance, NEW)


def test_shares_do_not_open_an_hsm_that_a_secret_activates(appliance: OneAppliance) -> None:
    handed = drawn(appliance)
    appliance.restart()
    with pytest.raises(errors.ArgumentInvalid, match="by a secret, and not by shares"):
        asyncio.run(appliance.ask(console.HSM_ACTIVATE, console.Activate(shares=handed)))


def test_a_core_that_was_started_anew_has_forgotten_what_was_drawn(appliance: OneAppliance) -> None:
    handed = drawn(appliance)
    assert activates(appliance, ACTIVATION)
    with pytest.raises(errors.NotPossible, match="draw them anew"):
        set_(appliance, shares=handed)
    assert activates(appliance, ACTIVATION)


def without_tpm(appliance: OneAppliance) -> OneAppliance:
    appliance.tpm.failing = errors.TpmFailed("there is no TPM")
    return appliance


def seen(appliance: OneAppliance) -> tuple[bool, tuple[int, ...]]:
    view = asyncio.run(appliance.ask(console.HSM_SHOW))
    assert isinstance(view, console.HsmView)
    return view.tpm, view.tpm_pcrs


def test_a_tpm_activates_and_so_does_the_secret_that_was_set_with_it(appliance: OneAppliance) -> None:
    before = appliance.vault.opened
    set_(appliance, NEW, tpm=True, pcrs=(7, 4, 7))
    assert activates(appliance), "nothing is asked for where the TPM opens it"
    assert seen(appliance) == (True, (4, 7))
    assert appliance.vault.opened == before
    assert activates(appliance, NEW)
    assert not activates(appliance, ACTIVATION)
    appliance.restart()
    asyncio.run(appliance.ask(console.HSM_ACTIVATE, console.Activate()))
    asyncio.run(appliance.ask(console.HSM_DEACTIVATE, console.Activate()))
    assert appliance.vault.state is None
    assert seen(appliance) == (True, (4, 7)), "it is told before anything is open"


def test_without_its_tpm_an_hsm_opens_by_the_secret_alone(appliance: OneAppliance) -> None:
    set_(appliance, NEW, tpm=True)
    appliance.tpm = OneTpm()
    appliance.restart()
    with pytest.raises(errors.TpmFailed, match="not the one that sealed"):
        asyncio.run(appliance.ask(console.HSM_ACTIVATE, console.Activate()))
    with pytest.raises(errors.ArgumentInvalid, match="not by shares"):
        asyncio.run(appliance.ask(console.HSM_ACTIVATE, console.Activate(shares=("share",))))
    assert activates(appliance, NEW)
    set_(appliance, ACTIVATION, tpm=True)
    assert activates(appliance), "it was sealed to this one"


@pytest.mark.parametrize("to", ["secret", "shares"])
def test_what_replaces_a_tpm_leaves_nothing_of_it(appliance: OneAppliance, to: str) -> None:
    set_(appliance, NEW, tpm=True)
    handed = drawn(appliance)
    if to == "shares":
        set_(appliance, shares=handed)
    else:
        set_(appliance, ACTIVATION)
    assert seen(appliance) == (False, ())
    assert not activates(appliance)
    assert not activates(appliance, NEW)
    assert activates(appliance, *((b"", handed) if to == "shares" else (ACTIVATION, ())))


def test_an_hsm_without_a_tpm_does_not_ask_one(appliance: OneAppliance) -> None:
    without_tpm(appliance)
    assert not activates(appliance)
    assert activates(appliance, ACTIVATION)


REFUSALS: list[tuple[str, Callable[[OneAppliance], object], type[errors.LnhError]]] = [
    ("another SO", lambda made: set_(made, NEW, so="somebody else"), errors.PasswordIncorrect),
    ("a short secret", lambda made: set_(made, b"short"), errors.PasswordInvalid),
    ("no secret", set_, errors.PasswordInvalid),
    ("too few shares", lambda made: set_(made, shares=drawn(made)[:1]), errors.ArgumentInvalid),
    ("shares of one", lambda made: drawn(made, 1, 2), errors.ArgumentInvalid),
    ("more than there are", lambda made: drawn(made, 3, 2), errors.ArgumentInvalid),
    ("a TPM and no secret", lambda made: set_(made, tpm=True), errors.PasswordInvalid),
    ("a TPM and a short secret", lambda made: set_(made, b"short", tpm=True), errors.PasswordInvalid),
    ("a TPM and shares", lambda made: set_(made, shares=drawn(made), tpm=True), errors.ArgumentInvalid),
    ("PCRs and no TPM", lambda made: set_(made, NEW, pcrs=(7,)), errors.ArgumentInvalid),
    ("a TPM that fails", lambda made: set_(without_tpm(made), NEW, tpm=True), errors.TpmFailed),
]


@pytest.mark.parametrize(("act", "error"), [each[1:] for each in REFUSALS], ids=[each[0] for each in REFUSALS])
def test_what_is_refused_leaves_the_secret_as_it_was(
    appliance: OneAppliance, act: Callable[[OneAppliance], object], error: type[errors.LnhError]
) -> None:
    with pytest.raises(error):
        act(appliance)
    assert activates(appliance, ACTIVATION)


class Killed(BaseException):
    """The core was killed here."""


@pytest.mark.parametrize("written", [False, True])
def test_a_core_that_is_killed_meanwhile_opens_with_the_one_or_the_other(
    appliance: OneAppliance, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    handed = drawn(appliance)
    replace_file = durable.replace_file

    def killed(path: Path, data: bytes) -> None:
        cover_of_shares = len(data) > (appliance.directory / "hsm.state").stat().st_size + 100
        if not cover_of_shares or written:
            replace_file(path, data)
        if cover_of_shares:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_file", killed)
        with pytest.raises(Killed):
            set_(appliance, shares=handed)
    assert activates(appliance, shares=handed) == written
    assert activates(appliance, ACTIVATION) != written


def test_a_full_disk_changes_nothing(appliance: OneAppliance, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = drawn(appliance)
    tried = 0

    def full(path: Path, data: bytes) -> None:
        nonlocal tried
        tried += 1
        if tried > 2:  # the attempt at the SO's password is counted
            raise errors.StorageFailed("no space")
        replace(path, data)

    replace = durable.replace_file
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_file", full)
        with pytest.raises(errors.StorageFailed):
            set_(appliance, shares=handed)
    appliance.vault.change(lambda state: state)
    assert activates(appliance, ACTIVATION)


def test_no_share_is_in_the_trail(appliance: OneAppliance) -> None:
    handed = drawn(appliance)
    set_(appliance, shares=handed)
    trail = appliance.trail_path.read_text()
    assert '"hsm.draw-shares"' in trail
    assert '"hsm.set-activation"' in trail
    assert not any(line in trail for share in handed for line in share.splitlines()[1:])
