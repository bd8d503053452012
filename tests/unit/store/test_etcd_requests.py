"""Requests to etcd stay below their prefix, and a failure is certain only where nothing was done."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import ArgumentInvalid
from lnh_services.store.etcd.requests import (
    Compact,
    Compare,
    Differed,
    Done,
    Put,
    Range,
    Refused,
    Request,
    Transaction,
    Unknown,
    Why,
)
from lnh_services.store.etcd_client import rpc_pb2 as rpc
from lnh_services.store.etcd_client.encoding import Keys, decode, encode
from lnh_services.store.etcd_client.failures import UNREACHABLE, Next, failed
from sizes import sized

PREFIX = b"lnh/test/"
KEYS = st.binary(max_size=12)
RANGES = st.builds(Range, KEYS, KEYS, st.integers(0, 9))
PUTS = st.builds(Put, KEYS, KEYS)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    RANGES,
    st.builds(
        Transaction,
        st.lists(st.builds(Compare, KEYS, st.none() | KEYS), max_size=3).map(tuple),
        st.lists(PUTS, max_size=3).map(tuple),
        st.lists(RANGES, max_size=3).map(tuple),
        st.none() | RANGES,
    ),
)


def named(message: rpc.RangeRequest | rpc.DeleteRangeRequest) -> tuple[bytes, bytes]:
    return message.key, message.range_end


def ranges_of(message: object) -> list[tuple[bytes, bytes]]:
    """Every range of keys, and every key (without an end), that a message names."""
    if isinstance(message, rpc.RangeRequest):
        return [named(message)]
    assert isinstance(message, rpc.TxnRequest)
    found = [(each.key, b"") for each in message.compare]
    for each in (*message.success, *message.failure):
        match each.WhichOneof("request"):
            case "request_range":
                found.append(named(each.request_range))
            case "request_delete_range":
                found.append(named(each.request_delete_range))
            case _:
                found.append((each.request_put.key, b""))
    return found


@given(REQUESTS)
@settings(max_examples=sized(300))
def test_no_request_names_a_key_outside_the_prefix(request: Request) -> None:
    after = PREFIX[:-1] + bytes((PREFIX[-1] + 1,))
    for first, end in ranges_of(encode(Keys(PREFIX), request)):
        assert PREFIX <= first < after
        assert end == b"" or PREFIX <= end < after


@given(REQUESTS)
@settings(max_examples=sized(100))
def test_a_request_keeps_every_comparison_and_change_in_its_message(request: Request) -> None:
    keys = Keys(PREFIX)
    message = encode(keys, request)
    if isinstance(request, Transaction):
        assert isinstance(message, rpc.TxnRequest)
        told = [
            Compare(keys.short(each.key), each.value if each.WhichOneof("target_union") == "value" else None)
            for each in message.compare
        ]
        assert tuple(told) == request.compares
        assert [each.target == rpc.Compare.VALUE for each in message.compare] == [
            each.value is not None for each in request.compares
        ]
        puts = [each.request_put for each in message.success if each.HasField("request_put")]
        assert tuple(Put(keys.short(each.key), each.value) for each in puts) == request.puts
        deletes = [each.request_delete_range for each in message.success if each.HasField("request_delete_range")]
        assert [named(each) for each in deletes] == [
            (keys.full(each.first), keys.full(each.end)) for each in request.deletes
        ]
        assert len(message.failure) == (request.otherwise is not None)


def test_a_reply_becomes_what_was_done_and_found() -> None:
    keys, header = Keys(PREFIX), rpc.ResponseHeader(cluster_id=1, revision=7)
    found = rpc.RangeResponse(header=header, kvs=[rpc.KeyValue(key=PREFIX + b"a", value=b"1")])
    assert decode(keys, found) == Done(7, ((b"a", b"1"),))
    assert decode(keys, rpc.TxnResponse(header=header, succeeded=True)) == Done(7)
    otherwise = rpc.TxnResponse(header=header, responses=[rpc.ResponseOp(response_range=found)])
    assert decode(keys, otherwise) == Differed(7, ((b"a", b"1"),))
    assert decode(keys, rpc.CompactionResponse(header=header)) == Done(7)
    assert encode(keys, Compact(5)) == rpc.CompactionRequest(revision=5)


@pytest.mark.parametrize("prefix", [b"", b"\xff\xff"])
def test_a_prefix_that_ends_nowhere_is_refused(prefix: bytes) -> None:
    with pytest.raises(ArgumentInvalid):
        Keys(prefix)


# What etcd says (api/v3rpc/rpctypes/error.go), and gRPC, with what is known then. None: nothing.
CERTAIN = {
    "etcdserver: request is too large": Why.TOO_LARGE,
    "grpc: received message larger than max (1081396 vs. 589824)": Why.TOO_LARGE,
    "etcdserver: permission denied": Why.FORBIDDEN,
    "etcdserver: authentication failed, invalid user ID or password": Why.FORBIDDEN,
    "etcdserver: invalid auth token": Why.FORBIDDEN,
    "etcdserver: revision of auth store is old": Why.FORBIDDEN,
    "etcdserver: no leader": Why.UNREACHABLE,
    "etcdserver: too many requests": Why.UNREACHABLE,
}
UNCERTAIN = {
    "etcdserver: mvcc: database space exceeded": Why.NO_SPACE,
    "etcdserver: leader changed": None,
    "etcdserver: server stopped": None,
    "etcdserver: request timed out": None,
    "etcdserver: request timed out, possibly due to previous leader failure": None,
    "etcdserver: request timed out, possibly due to connection lost": None,
    "Socket closed": None,
    "failed to connect to all addresses": None,
    "CLIENT: Received message larger than max": None,
    "": None,
}


@pytest.mark.parametrize(("text", "why"), CERTAIN.items())
def test_what_etcd_refuses_before_it_does_anything_is_certain(text: str, why: Why) -> None:
    assert failed(grpc.StatusCode.UNKNOWN, text).outcome() == Refused(why, text)


@pytest.mark.parametrize(("text", "why"), UNCERTAIN.items())
def test_what_may_have_been_done_is_unknown(text: str, why: Why | None) -> None:
    outcome = failed(grpc.StatusCode.UNAVAILABLE, text).outcome()
    assert outcome == Unknown(why, text or "UNAVAILABLE")


@given(st.sampled_from(list(grpc.StatusCode)), st.text())
@settings(max_examples=sized(100))
def test_a_failure_of_other_words_is_never_certain(code: grpc.StatusCode, text: str) -> None:
    found = failed(code, text)
    assert (found.certain, found.next) == (False, Next.ELSEWHERE)
    assert isinstance(found.outcome(), Unknown)


def test_what_was_not_sent_is_certain() -> None:
    assert isinstance(UNREACHABLE.outcome(), Refused)
