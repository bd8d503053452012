"""Who asked on without reading is kept out for a while, and nobody for longer."""

from __future__ import annotations

from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.messages import store
from lnh_common.wire import codec
from lnh_services.balancer.clients import TABLE, Clients, Question
from lnh_services.balancer.put_out import PutOut

KEY = bytes(range(32))


def test_a_key_is_out_for_a_while_and_no_other() -> None:
    out = PutOut(Clients())
    out.add(100.0, "a")
    assert out.has(100.0, "a")
    assert not out.has(100.0, "b")
    assert out.has(100.0 + limits.PUT_OUT_SECONDS - 0.1, "a")
    assert not out.has(100.0 + limits.PUT_OUT_SECONDS, "a")


def test_as_many_as_may_are_out_and_those_whose_time_is_over_make_room() -> None:
    out = PutOut(Clients())
    for number in range(limits.KEYS_PUT_OUT):
        out.add(0.0, str(number))
    out.add(1.0, "one more")
    assert not out.has(1.0, "one more")
    out.add(limits.PUT_OUT_SECONDS, "one more")
    assert out.has(limits.PUT_OUT_SECONDS, "one more")


def test_strangers_take_no_place_of_a_registered_client() -> None:
    clients = Clients()
    steps = clients.follow()
    assert isinstance(next(steps), Question)
    head = codec.encode({"id": b"web-1", "name": "web-1", "curve_key": KEY, "revoked": False})
    item = store.Item(key=store.Key(table=TABLE, id=b"web-1"), version=1, head=head)
    steps.send(store.Scanned(items=(item,), more=False, index=5, current=True))
    out, registered = PutOut(clients), curve.to_z85(KEY).decode()
    for number in range(limits.KEYS_PUT_OUT):
        out.add(0.0, str(number))
    out.add(1.0, registered)
    assert out.has(1.0, registered)
    assert not out.has(1.0, "0"), "a key that anybody makes anew is not worth a place"
    steps.close()
