"""What every asyncio service does before it serves."""

from __future__ import annotations

import gc

import pytest

from lnh_services import serving


def test_what_a_service_made_at_its_start_is_left_out_of_collections_which_are_rare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[int, int]] = []

    def guarded(service: str, main: object) -> int:
        found.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        return serving.EXIT_OK

    async def unserved(_: object, __: object) -> None:
        pytest.fail("it is not served here")

    monkeypatch.setattr(serving, "guarded", guarded)
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        assert serving.run("store", unserved) == serving.EXIT_OK
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    ((left_out, every),) = found
    assert left_out > frozen
    assert every > before[0]
