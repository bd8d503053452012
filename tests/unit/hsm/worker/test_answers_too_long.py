"""An answer, or a request, that no message holds is an error at once, for every operation: nobody waits for it in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lnh_common import limits
from lnh_common.bus.client import Client
from lnh_common.bus.server import Server
from lnh_common.errors import DataLength, Internal, LnhError, MalformedMessage, NameUnknown, OutcomeUnknown
from lnh_common.messages import hsm, store
from lnh_common.messages.admin import (
    CLIENT_REVOKE,
    GROUP_CREATE,
    USER_LIST,
    ClientRef,
    NewGroup,
    Remark,
    Users,
    UserView,
)
from lnh_common.messages.base import OPERATIONS, Effect, Empty, Message, Operation, Seal
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import SessionKeys
from lnh_common.wire.frames import Header, Kind
from lnh_services.hsm.effects import Ask, Deadline, Peer
from lnh_services.hsm.worker.loop import Worker, boot_time
from lnh_services.hsm.worker.tasks import Task
from lnh_services.paths import MemberDirectory

TOO_MUCH = bytes(limits.BODY_BYTES)
KEYS = SessionKeys.derive(bytes(32), b"token")


def said_instead(operation: Operation[Any, Any]) -> type[LnhError]:
    return OutcomeUnknown if operation.effect is Effect.WRITE else DataLength


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda row: row.name)
def test_every_answer_that_is_too_long_is_an_error_that_fits(operation: Operation[Any, Any]) -> None:
    asked = wire.request(operation.name, 1, 1000)
    if operation.seal is not Seal.NONE:
        body = channel.seal_reply(KEYS, asked, b"request", {"data": TOO_MUCH})
        assert len(body) <= limits.BODY_BYTES
        error = channel.open_answer(KEYS, asked, b"request", body)
    else:
        frames = wire.reply_frames(asked, codec.encode({"data": TOO_MUCH}))
        wire.check_frames(frames)
        assert Header.parse(frames[0]).kind is Kind.ERROR
        error = wire.parse_error(frames[2])
    assert type(error) is said_instead(operation)
    assert operation.name in str(error)
    assert f"a message holds {limits.BODY_BYTES}" in str(error)


@pytest.mark.parametrize("sealed", [False, True])
def test_an_error_that_is_too_long_stays_the_error_that_it_is(sealed: bool) -> None:
    asked = wire.request(USER_LIST.name, 1, 1000)
    told = NameUnknown("no user " + "x" * len(TOO_MUCH), {"about": "y" * len(TOO_MUCH)})
    if sealed:
        error = channel.open_answer(KEYS, asked, b"request", channel.seal_reply(KEYS, asked, b"request", told))
    else:
        frames = wire.error_frames(asked, told)
        wire.check_frames(frames)
        error = wire.parse_error(frames[2])
    assert type(error) is NameUnknown
    assert str(error).startswith("no user xxx")
    assert len(str(error)) < 2000


def test_what_just_fits_is_answered_as_it_is() -> None:
    asked = wire.request(USER_LIST.name, 1, 1000)
    room = limits.BODY_BYTES - len(channel.seal_reply(KEYS, asked, b"request", {"data": bytes(1 << 16)})) + (1 << 16)
    for size, kind in ((room, dict), (room + 1, DataLength)):
        body = channel.seal_reply(KEYS, asked, b"request", {"data": bytes(size)})
        assert type(channel.open_answer(KEYS, asked, b"request", body)) is kind


def test_a_service_says_so_to_another_and_nothing_too_long_is_sent(short_path: Path) -> None:
    asyncio.run(_ask_a_service(f"ipc://{short_path}/service"))


async def _ask_a_service(address: str) -> None:
    async def many(*_: object) -> Users:
        return Users(users=(UserView(name="x" * len(TOO_MUCH), role="admin"),))

    async def made(*_: object) -> Remark:
        return Remark(remark="x" * len(TOO_MUCH))

    server = Server(address, name="a")
    server.serve(USER_LIST, many)
    server.serve(GROUP_CREATE, made)
    server.start()
    client = Client(address, name="b")
    try:
        with pytest.raises(DataLength, match=r"user\.list: its answer has"):
            await client.ask(USER_LIST, Empty(), timeout=5)
        with pytest.raises(OutcomeUnknown, match=r"group\.create: its answer has"):
            await client.ask(GROUP_CREATE, NewGroup(label="x"), timeout=5)
        with pytest.raises(MalformedMessage, match="a body of"):
            await client.ask(CLIENT_REVOKE, ClientRef(client="x" * len(TOO_MUCH)), timeout=5)
    finally:
        await client.close()
        await server.close()


KEY = store.Key(table="users", scope=b"", id=bytes(16))
COMMIT = store.Commit(client=bytes(16), session=bytes(16), sequence=1, issued_at=1, changes=())


def asking(heard: list[LnhError]) -> Generator[Ask, Any, None]:
    """What a request does that has asked for something: it hears what came of it."""
    try:
        yield Ask(Peer.STORE, store.GET, store.Get(key=KEY))
    except LnhError as error:
        heard.append(error)


@pytest.mark.parametrize(
    ("asked", "message", "kind"),
    [
        (store.GET, store.Get(key=KEY), Internal),
        (store.COMMIT, COMMIT, OutcomeUnknown),
    ],
)
@pytest.mark.parametrize("body", [b"\xff no CBOR", TOO_MUCH + b"more"])
def test_an_answer_that_a_worker_cannot_read_is_told_at_once_to_all_who_wait_for_it(
    short_path: Path, asked: Operation[Any, Any], message: Message, kind: type[LnhError], body: bytes
) -> None:
    heard: list[LnhError] = []
    with closing(Worker(MemberDirectory(short_path), 0)) as worker:
        tasks = [Task(asking(heard), None, Deadline(boot_time() + 5)) for _ in range(2)]
        for task in tasks:
            next(task.steps)
        worker._ask_for(tasks, Ask(Peer.STORE, asked, message))
        ((number, _),) = worker._waiting.items()
        header = wire.request(asked.name, number, 1000).answer(Kind.REPLY)
        worker._answered(Peer.STORE, [header.pack(), b"", body])
        assert worker._waiting == {}
    assert [type(each) for each in heard] == [kind] * 2
    assert all(f"{asked.name}: the answer of the store cannot be read" in str(each) for each in heard)


def test_what_a_worker_would_send_too_much_of_is_refused_to_all_who_asked(short_path: Path) -> None:
    heard: list[LnhError] = []
    with closing(Worker(MemberDirectory(short_path), 0)) as worker:
        task = Task(asking(heard), None, Deadline(boot_time() + 5))
        next(task.steps)
        entry = hsm.AuditEntry(identity="x" * len(TOO_MUCH), role="", operation="", target="", outcome="", detail={})
        worker._ask_for([task], Ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=(entry,))))
        assert worker._waiting == {}
    assert [type(each) for each in heard] == [MalformedMessage]


def test_a_store_that_tells_of_fewer_commits_than_it_was_asked_for_is_not_believed(short_path: Path) -> None:
    heard: list[LnhError] = []
    with closing(Worker(MemberDirectory(short_path), 0)) as worker:
        tasks = [Task(asking(heard), None, Deadline(boot_time() + 5)) for _ in range(2)]
        for task in tasks:
            next(task.steps)
        worker._ask_for(tasks, Ask(Peer.STORE, store.COMMIT_EACH, store.Commits.of([COMMIT, COMMIT])))
        ((number, _),) = worker._waiting.items()
        header = wire.request(store.COMMIT_EACH.name, number, 1000).answer(Kind.REPLY)
        worker._answered(Peer.STORE, [header.pack(), b"", codec.encode(store.Outcomes(outcomes=()))])
    assert [type(each) for each in heard] == [OutcomeUnknown] * 2
