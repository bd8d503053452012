"""Puts requests into etcd's messages, under the prefix of the cluster, and takes outcomes out of them. Pure."""

from __future__ import annotations

from typing import TypeAlias

from lnh_common.errors import ArgumentInvalid
from lnh_services.store.etcd.requests import Compact, Compare, Differed, Done, Put, Range, Request, Transaction
from lnh_services.store.etcd_client import rpc_pb2 as rpc

Asked: TypeAlias = rpc.RangeRequest | rpc.TxnRequest | rpc.CompactionRequest
Reply: TypeAlias = rpc.RangeResponse | rpc.TxnResponse | rpc.CompactionResponse


class Keys:
    """Names keys by what comes after the prefix, so that none outside it can be named."""

    def __init__(self, prefix: bytes) -> None:
        """Raise ArgumentInvalid for a prefix that no key could be outside of."""
        if not prefix.rstrip(b"\xff"):
            raise ArgumentInvalid("a prefix of keys in etcd is not empty")
        self._prefix = prefix

    def full(self, key: bytes) -> bytes:
        """Return a key, or the end of a range, as etcd has it.

        It begins with the prefix, so a range never goes beyond what does; and it is neither empty nor a zero byte, by
        which etcd means one key, or all keys.
        """
        return self._prefix + key

    def short(self, key: bytes) -> bytes:
        """Return what comes after the prefix."""
        assert key.startswith(self._prefix), "etcd answers with what was asked for"
        return key[len(self._prefix) :]


def encode(keys: Keys, request: Request) -> Asked:
    """Make the message of a request."""
    match request:
        case Range():
            return _range(keys, request)
        case Compact(revision=revision):
            return rpc.CompactionRequest(revision=revision)
        case Transaction():
            deletes = [_delete(keys, each) for each in request.deletes]
            otherwise = [] if request.otherwise is None else [request.otherwise]
            return rpc.TxnRequest(
                compare=[_compare(keys, each) for each in request.compares],
                success=[*deletes, *(_put(keys, each) for each in request.puts)],
                failure=[rpc.RequestOp(request_range=_range(keys, each)) for each in otherwise],
            )


def decode(keys: Keys, reply: Reply) -> Done | Differed:
    """Take the outcome out of a reply."""
    revision = reply.header.revision
    if isinstance(reply, rpc.RangeResponse):
        return Done(revision, _found(keys, reply))
    if isinstance(reply, rpc.CompactionResponse) or reply.succeeded:
        return Done(revision)
    found = tuple(pair for each in reply.responses for pair in _found(keys, each.response_range))
    return Differed(revision, found)


def _compare(keys: Keys, compare: Compare) -> rpc.Compare:
    if compare.value is None:  # a key that is not there is of version 0
        return rpc.Compare(target=rpc.Compare.VERSION, key=keys.full(compare.key), version=0)
    return rpc.Compare(target=rpc.Compare.VALUE, key=keys.full(compare.key), value=compare.value)


def _put(keys: Keys, put: Put) -> rpc.RequestOp:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=keys.full(put.key), value=put.value))


def _delete(keys: Keys, gone: Range) -> rpc.RequestOp:
    first, end = keys.full(gone.first), keys.full(gone.end)
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=first, range_end=end))


def _range(keys: Keys, request: Range) -> rpc.RangeRequest:
    return rpc.RangeRequest(key=keys.full(request.first), range_end=keys.full(request.end), limit=request.limit)


def _found(keys: Keys, reply: rpc.RangeResponse) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((keys.short(each.key), each.value) for each in reply.kvs)
