"""Who asked on without reading is kept out for a while, and nobody for longer."""

from __future__ import annotations

from lnh_common import limits
from lnh_services.balancer.put_out import PutOut


def test_a_key_is_out_for_a_while_and_no_other() -> None:
    out = PutOut()
    out.add(100.0, "a")
    assert out.has(100.0, "a")
    assert not out.has(100.0, "b")
    assert out.has(100.0 + limits.PUT_OUT_SECONDS - 0.1, "a")
    assert not out.has(100.0 + limits.PUT_OUT_SECONDS, "a")


def test_as_many_as_may_are_out_and_those_whose_time_is_over_make_room() -> None:
    out = PutOut()
    for number in range(limits.KEYS_PUT_OUT):
        out.add(0.0, str(number))
    out.add(1.0, "one more")
    assert not out.has(1.0, "one more")
    out.add(limits.PUT_OUT_SECONDS, "one more")
    assert out.has(limits.PUT_OUT_SECONDS, "one more")
