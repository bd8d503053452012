"""Store to store over real sockets: who may come in, who a message is from, what is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from lnh_common import limits
from lnh_common.bus.curve import KeyPair
from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import NO_EPOCH, ClusterId, Entry, Epoch, MemberId, Milliseconds, Write
from lnh_services.store.net import peers
from lnh_services.store.net.peers import PeerStores
from lnh_services.store.net.transfer import Chunk, Transfer
from lnh_services.store.replication.messages import Append, Ask, Fetched, Keep, Message, Ping
from processes import free_base_port
from waits import until

PATIENCE = 20.0
GENESIS = log.genesis(ClusterId(b"C" * 16))


@dataclass
class End:
    """One member's peers, and what it heard."""

    info: MemberInfo
    key_file: Path
    keys: KeyPair
    heard: list[tuple[MemberId, Message]] = field(default_factory=list)
    transfers: list[tuple[MemberId, Transfer]] = field(default_factory=list)
    peers: PeerStores = field(init=False)

    @property
    def id(self) -> MemberId:
        return MemberId(self.info.id)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.info.port + peers.STORE_PORT}"

    def start(self) -> None:
        self.peers = PeerStores(
            self.address, self.key_file,
            lambda sender, message: self.heard.append((sender, message)),
            lambda sender, word: self.transfers.append((sender, word)),
        )  # fmt: skip


def make(directory: Path, number: int) -> End:
    keys = KeyPair.generate()
    path = directory / f"{number}.curve"
    keys.save(path)
    info = MemberInfo(
        id=bytes([number]) * 16, name=f"M{number}", host="127.0.0.1", port=free_base_port(), key=keys.raw_public
    )
    return End(info, path, keys)


def listens(one: PeerStores) -> bool:
    one.tidy()
    return not one.problem


def binds(probe: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def play(directory: Path, count: int, scenario: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        ends = [make(directory, number + 1) for number in range(count)]
        for end in ends:
            end.start()
        try:
            await scenario(*ends)
        finally:
            for end in ends:
                with contextlib.suppress(AttributeError):
                    end.peers.close()

    asyncio.run(run())


def acquaint(*ends: End) -> None:
    for end in ends:
        end.peers.know([other.info for other in ends if other is not end])


def test_a_message_arrives_with_the_member_it_is_from(tmp_path: Path) -> None:
    async def scenario(one: End, two: End, three: End) -> None:
        acquaint(one, two, three)
        await until(lambda: two.peers.is_connected(one.id) and three.peers.is_connected(one.id), "connections")
        two.peers.send(one.id, Ask())
        three.peers.send(one.id, Ping(Epoch(3, three.id), b"i", 7))
        three.peers.transfer(one.id, Chunk(b"s", 1, b"x" * 256 * limits.KIB))
        await until(lambda: len(one.heard) == 2 and one.transfers, "what was said")
        assert (two.id, Ask()) in one.heard
        assert (three.id, Ping(Epoch(3, three.id), b"i", 7)) in one.heard
        assert one.transfers == [(three.id, Chunk(b"s", 1, b"x" * 256 * limits.KIB))]

    play(tmp_path, 3, scenario)


def test_a_key_that_is_no_members_is_refused(tmp_path: Path) -> None:
    async def scenario(one: End, two: End, stranger: End) -> None:
        acquaint(one, two)
        stranger.peers.know([one.info])
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        await until(lambda: stranger.peers._links[one.id].problem, "the refusal")
        assert not stranger.peers.is_connected(one.id)
        stranger.peers.send(one.id, Ask())
        two.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what the member said")
        assert one.heard == [(two.id, Ask())]
        assert one.peers._refused

    play(tmp_path, 3, scenario)


def test_a_member_that_was_refused_comes_in_once_it_is_known(tmp_path: Path) -> None:
    """It has just joined, and the other has not heard of it yet."""

    async def scenario(one: End, two: End, joiner: End) -> None:
        acquaint(one, two)
        joiner.peers.know([one.info])
        await until(lambda: joiner.peers._links[one.id].problem, "the refusal")
        acquaint(one, joiner)
        await until(lambda: joiner.peers.is_connected(one.id), "a connection")
        joiner.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what the joiner said")
        assert one.heard == [(joiner.id, Ask())]

    play(tmp_path, 3, scenario)


def test_a_server_with_another_key_than_listed_is_not_spoken_to(tmp_path: Path) -> None:
    async def scenario(one: End, two: End, other: End) -> None:
        acquaint(one, two)
        lie = MemberInfo(id=one.info.id, name="M1", host="127.0.0.1", port=one.info.port, key=other.info.key)
        two.peers.know([lie])
        await until(lambda: two.peers._links[one.id].problem, "the refusal")
        assert not two.peers.is_connected(one.id)

    play(tmp_path, 3, scenario)


def test_a_removed_member_may_speak_and_be_answered_until_it_is_forgotten(tmp_path: Path) -> None:
    async def scenario(one: End, two: End, three: End) -> None:
        acquaint(one, two, three)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        one.peers.know([three.info])
        two.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what the removed one said")
        one.peers.send(two.id, Ask())  # connects
        await until(lambda: one.peers.is_connected(two.id), "a connection to it")
        one.peers.send(two.id, Ask())
        await until(lambda: two.heard, "the answer")
        assert one.heard == [(two.id, Ask())]

    play(tmp_path, 3, scenario)


def test_a_member_removed_before_this_start_may_speak_too(tmp_path: Path) -> None:
    async def scenario(one: End, two: End, three: End) -> None:
        one.peers.know([three.info], [two.info])
        two.peers.know([one.info])
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        two.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what it said")
        assert one.heard == [(two.id, Ask())]
        again = MemberInfo(id=b"new" * 4, name="M2", host="127.0.0.1", port=two.info.port, key=two.info.key)
        one.peers.know([three.info, again], [two.info])
        two.peers.send(one.id, Ask())
        await until(lambda: len(one.heard) == 2, "what it said again")
        assert one.heard[1] == (MemberId(again.id), Ask())  # who has that key now

    play(tmp_path, 3, scenario)


def test_a_member_that_comes_back_is_connected_again(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        one.peers.close()
        await until(lambda: not two.peers.is_connected(one.id), "the end of the connection")
        two.peers.send(one.id, Ask())
        assert two.peers.dropped == 1
        one.start()
        one.peers.know([two.info])
        await until(lambda: two.peers.is_connected(one.id), "another connection")
        two.peers.send(one.id, Ping(NO_EPOCH, b"", 1))
        await until(lambda: one.heard, "what is said now")
        assert one.heard == [(two.id, Ping(NO_EPOCH, b"", 1))]  # and nothing of before

    play(tmp_path, 2, scenario)


def test_who_leaves_listens_no_more_and_comes_back_with_another_key(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        one.peers.leave()
        await until(lambda: not two.peers.is_connected(one.id), "the end of the connection")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was connected there may linger
            await until(lambda: binds(probe, one.info.port + peers.STORE_PORT), "the port")
        one.key_file.unlink()
        one.keys = KeyPair.generate()
        one.keys.save(one.key_file)
        one.info = msgspec.structs.replace(one.info, id=b"again" * 3 + b"!", key=one.keys.raw_public)
        acquaint(one, two)
        await until(lambda: listens(one.peers), "the port again")
        await until(lambda: two.peers.is_connected(one.id) and one.peers.is_connected(two.id), "connections")
        one.peers.send(two.id, Ask())
        await until(lambda: two.heard, "what it said")
        assert two.heard == [(one.id, Ask())]

    play(tmp_path, 2, scenario)


def test_a_member_whose_address_changed_is_reached_there(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        one.peers.close()
        one.info = MemberInfo(id=one.info.id, name="M1", host="127.0.0.1", port=free_base_port(), key=one.info.key)
        one.start()
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection to the new address")
        two.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what was said")

    play(tmp_path, 2, scenario)


def test_a_port_that_is_taken_is_a_problem_until_it_is_free(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", one.info.port + peers.STORE_PORT))
            squatter.listen()
            acquaint(one, two)
            assert "cannot connect" in one.peers.problem
        await until(lambda: listens(one.peers), "the port")
        await until(lambda: two.peers.is_connected(one.id), "a connection")

    play(tmp_path, 2, scenario)


def chain(candidate: MemberId, count: int, body: bytes) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for n in range(count):
        put = Put(key=Key(table="t", id=b"%d" % n), expected=0, head=b"", body=body)
        commit = Commit(client=b"c" * 16, session=b"s" * 16, sequence=n + 1, issued_at=0, changes=(put,))
        last = entries[-1].position() if entries else GENESIS
        entries.append(log.make_entry(last, Epoch(1, candidate), Milliseconds(n), Write(commit)))
    return tuple(entries)


def test_a_full_batch_of_entries_passes_and_what_does_not_decode_costs_nothing_else(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        link = two.peers._links[one.id]
        for frames in ([b"x"], [b"", b"", b""], [wire.request("store.replica", 0, 0).pack(), b"", b""]):
            link.socket.send_multipart(frames)
        cast = wire.request("store.replica", 0, 0, kind=wire.Kind.CAST).pack()
        link.socket.send_multipart([cast, b"", codec.encode(["append", 1])])
        append = Append(Epoch(1, two.id), GENESIS, chain(two.id, 8, b"b" * (limits.MIB - 1000)), 3)
        two.peers.send(one.id, append)
        await until(lambda: one.heard, "the batch")
        assert one.heard == [(two.id, append)]

    play(tmp_path, 2, scenario)


def test_entries_that_were_changed_or_do_not_follow_are_not_heard(tmp_path: Path) -> None:
    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        epoch = Epoch(1, two.id)
        first, second = chain(two.id, 2, b"body")
        other = msgspec.structs.replace(second, payload=second.payload.replace(b"body", b"ydob"))
        nothing = log.entry_hash(epoch, 1, Milliseconds(0), GENESIS.hash, b"\x01")
        unreadable = Entry(epoch, 1, Milliseconds(0), GENESIS.hash, b"\x01", nothing)
        for entries in ((second,), (first, other), (unreadable,)):
            two.peers.send(one.id, Append(epoch, GENESIS, entries, 0))
            two.peers.send(one.id, Fetched(epoch, GENESIS, entries))
        two.peers.send(one.id, Keep(first))  # no open
        two.peers.send(one.id, Ask())
        await until(lambda: one.heard, "what is in order")
        assert one.heard == [(two.id, Ask())]

    play(tmp_path, 2, scenario)


def test_what_waits_for_a_member_that_does_not_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "QUEUE_BYTES", 4 * limits.MIB)

    async def scenario(one: End, two: End) -> None:
        acquaint(one, two)
        await until(lambda: two.peers.is_connected(one.id), "a connection")
        for pump in one.peers._pumps:
            pump.stop()
        big = Chunk(b"s", 0, b"x" * limits.MIB)
        for _ in range(200):
            two.peers.transfer(one.id, big)
            await asyncio.sleep(0)
        assert two.peers.dropped > 50
        assert two.peers._links[one.id].size <= 4 * limits.MIB

    play(tmp_path, 2, scenario)
