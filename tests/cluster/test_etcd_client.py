"""The client of etcd, and `lnh engine check`, against real nodes that are killed, stopped and cut off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import etcd_nodes
import failed
from etcd_nodes import OTHER, PASSWORD, PREFIX, USER, Authority, Etcd, Way
from lnh_cli.main import tree
from lnh_common import limits
from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe
from lnh_services.store.etcd.requests import (
    Compact,
    Compare,
    Differed,
    Done,
    Outcome,
    Put,
    Range,
    Refused,
    Request,
    Transaction,
    Unknown,
    Why,
)
from lnh_services.store.etcd_client.check.judge import Finding, State, judge
from lnh_services.store.etcd_client.check.probe import look
from lnh_services.store.etcd_client.client import Client
from processes import free_base_port
from waits import until

ALL = Range(b"", b"\xff")
LONG = 30.0  # seconds of what takes a few milliseconds


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    etcd_nodes.needed()
    with failed.directory() as root:
        (root / "password").touch(0o600)
        (root / "password").write_text(PASSWORD + "\n")
        yield Authority(root)


@pytest.fixture(scope="module")
def three(authority: Authority) -> Iterator[Etcd]:
    with etcd_nodes.running(authority, "three", 3) as running:
        running.let_in_by_role()
        yield running


@pytest.fixture
def etcd(three: Etcd) -> Iterator[Etcd]:
    """Three nodes, which a test leaves whole and without keys."""
    yield three
    three.whole()
    with_client(three, lambda client: done(client, Transaction((), deletes=(ALL,))))


@pytest.fixture(scope="module")
def small(authority: Authority) -> Iterator[Etcd]:
    """One node that takes little, and knows nobody."""
    limited = ("--max-request-bytes=65536", "--quota-backend-bytes=1000000")
    with etcd_nodes.running(authority, "small", 1, *limited, knows_clients=False) as running:
        yield running


def with_client(etcd: Etcd, does: Callable[[Client], Awaitable[Any]], *which: int, **settings: Any) -> Any:
    """What a test does with a client, in a loop of its own."""

    async def run() -> Any:
        async with Client(etcd.settings(*which, **settings)) as client:
            return await does(client)

    return asyncio.run(run())


def put(key: bytes, value: bytes = b"value") -> Transaction:
    """Set a key that is not there."""
    return Transaction((Compare(key, None),), (Put(key, value),), otherwise=ALL)


async def done(client: Client, request: Request) -> Done:
    """Carry out what is done, however long this machine takes for it."""
    outcome = await client.ask(request, LONG)
    assert isinstance(outcome, Done), outcome
    return outcome


async def keys(client: Client) -> set[bytes]:
    return {key for key, _ in (await done(client, ALL)).found}


def test_transactions_compare_change_and_read_at_one_revision(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        first = await done(client, put(b"log/1", b"one"))
        assert await done(client, Range(b"log/", b"log0")) == Done(first.revision, ((b"log/1", b"one"),))
        assert await client.ask(put(b"log/1", b"two"), LONG) == Differed(first.revision, ((b"log/1", b"one"),))
        was = Compare(b"log/1", b"one")
        two = Transaction((was,), (Put(b"log/2", b"two"), Put(b"log/3", b"three")))
        assert await done(client, two) == Done(first.revision + 1)
        both = ((b"log/1", b"one"), (b"log/2", b"two"))
        assert await done(client, Range(b"log/", b"log0", 2)) == Done(first.revision + 1, both)
        changed = Transaction((was,), (Put(b"log/4", b"four"),), (Range(b"log/1", b"log/3"),))
        assert await done(client, changed) == Done(first.revision + 2)
        assert await keys(client) == {b"log/3", b"log/4"}

    with_client(etcd, does)


def test_a_compaction_is_done_once_and_again_but_not_of_what_is_to_come(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        first = await done(client, put(b"a"))
        await done(client, Compact(first.revision))
        assert await done(client, Compact(first.revision)) == Done(first.revision)
        unknown = await client.ask(Compact(first.revision + 1000), LONG)
        assert isinstance(unknown, Unknown)
        assert "future revision" in unknown.text
        assert await keys(client) == {b"a"}

    with_client(etcd, does)


def test_a_transaction_whose_answer_is_lost_is_unknown_and_was_done(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        await done(client, put(b"before"))
        etcd.ways[0].cut(there=True)
        assert await client.ask(put(b"lost"), 1.0) == Unknown(None, "no answer in time")
        assert etcd.ways[0].swallowed > 0
        etcd.ways[0].heal()
        assert await keys(client) == {b"before", b"lost"}

    with_client(etcd, does, 0)


def test_a_transaction_whose_connection_ends_before_its_answer_is_not_sent_again(etcd: Etcd) -> None:
    way = etcd.ways[0]

    async def does(client: Client) -> None:
        await done(client, put(b"before"))
        way.cut(there=True)
        asked = asyncio.create_task(client.ask(put(b"lost", b"once"), LONG))
        await until(lambda: way.swallowed, "the answer")
        way.heal()  # which ends the connection
        outcome = await asked
        assert isinstance(outcome, Unknown), "sent again, it would have differed from itself"
        assert b"lost" in await keys(client)

    with_client(etcd, does, 0)


def test_a_transaction_that_was_lost_on_its_way_is_unknown_and_not_done(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        await done(client, put(b"before"))
        etcd.ways[0].cut()
        assert isinstance(await client.ask(put(b"lost"), 1.0), Unknown)
        etcd.ways[0].heal()
        assert await keys(client) == {b"before"}

    with_client(etcd, does, 0)


def test_a_transaction_is_unknown_when_its_node_is_killed_under_it(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        await done(client, put(b"before"))
        with etcd.nodes[1].standing_still():  # so that it has the request, and no answer is on its way
            before = etcd.ways[1].passed_there
            asked = asyncio.create_task(client.ask(put(b"lost", bytes(10_000)), 20.0))
            await until(lambda: etcd.ways[1].passed_there - before > 10_000, "the request at the node")
            with etcd.nodes[1].killed():
                outcome = await asked
        assert isinstance(outcome, Unknown)

    with_client(etcd, does, 1)


def test_what_no_node_was_reached_for_is_refused_for_certain(etcd: Etcd) -> None:
    nobody = f"https://127.0.0.1:{free_base_port()}"

    async def does(client: Client) -> None:
        for request in (put(b"a"), ALL, Compact(1)):
            assert await client.ask(request, 0.3) == Refused(Why.UNREACHABLE, "no node could be reached")

    with_client(etcd, does, endpoints=(nobody, nobody))


def test_a_client_whose_certificate_is_of_another_ca_reaches_nobody(etcd: Etcd, tmp_path: Path) -> None:
    other = Authority(tmp_path)

    async def does(client: Client) -> Outcome:
        return await client.ask(put(b"a"), 1.0)

    stranger = with_client(etcd, does, certificate=str(other.pem(USER)), key=str(other.key(USER)))
    misled = with_client(etcd, does, ca=str(other.file))
    assert [stranger, misled] == [Refused(Why.UNREACHABLE, "no node could be reached")] * 2


def test_without_a_majority_what_is_refused_is_never_done(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        outcomes: dict[bytes, Outcome] = {}

        async def refused() -> bool:
            key = b"%d" % len(outcomes)
            outcomes[key] = await client.ask(put(key), 0.5)
            return isinstance(outcomes[key], Refused)

        with etcd.nodes[1].standing_still(), etcd.nodes[2].standing_still():
            await until(refused, "a node that knows that it has no leader")
        last = outcomes[b"%d" % (len(outcomes) - 1)]
        assert last == Refused(Why.UNREACHABLE, "etcdserver: no leader")
        await until(client_is_served(client), "a majority")
        there = await keys(client)
        for key, outcome in outcomes.items():
            assert isinstance(outcome, Unknown) or (key in there) == isinstance(outcome, Done), (key, outcome)

    with_client(etcd, does, 0)


def client_is_served(client: Client) -> Callable[[], Awaitable[bool]]:
    async def served() -> bool:
        return isinstance(await client.ask(ALL), Done)

    return served


def test_a_node_that_stands_still_or_is_dead_costs_a_read_its_part_of_the_time(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        await done(client, put(b"a"))
        for broken in (etcd.nodes[0].standing_still, etcd.nodes[1].killed):  # the one that is asked, and the next one
            with broken():
                # Sooner than by the end of the connection, which pings would find after 8 s.
                assert isinstance(await client.ask(ALL, 6.0), Done)
            await asyncio.to_thread(etcd.whole)

    with_client(etcd, does)


class Appender:
    """Appends to a log as a primary does, and finds out what became of what is unknown."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.appended: list[bytes] = []
        self.unknown = 0
        self.resolved = 0

    async def append(self) -> None:
        number = len(self.appended)
        value = b"%d" % number
        was = Compare(b"head", self.appended[-1] if self.appended else None)
        append = Transaction(
            (was,), (Put(b"log/%06d" % number, value), Put(b"head", value)), otherwise=Range(b"head", b"heae")
        )
        tries = 0
        while True:
            outcome = await self._client.ask(append)
            tries += 1
            if isinstance(outcome, Done):
                break
            if isinstance(outcome, Differed):
                assert tries > 1, "an acknowledged entry was lost, or somebody else appended"
                assert outcome.found == ((b"head", value),), "what is there is what was tried"
                self.resolved += 1
                break
            assert isinstance(outcome, Unknown) or outcome.why is Why.UNREACHABLE, outcome
            self.unknown += isinstance(outcome, Unknown)
        self.appended.append(value)


def test_no_acknowledged_entry_is_lost_and_none_is_appended_twice(etcd: Etcd) -> None:
    async def does(client: Client) -> Appender:
        appender = Appender(client)
        going = True

        async def append() -> None:
            while going:
                await appender.append()

        async def more(count: int = 20) -> None:
            wanted = len(appender.appended) + count
            await until(lambda: len(appender.appended) >= wanted or appending.done(), "more entries")

        appending = asyncio.create_task(append())
        await more()
        with etcd.nodes[await asyncio.to_thread(etcd.leader)].killed():
            await more()
        await more()
        with etcd.nodes[await asyncio.to_thread(etcd.leader)].standing_still():
            await more()
        for way in etcd.ways:  # one after the other, so the one that is used among them
            way.cut(there=True)
            await more()
            way.heal()
        going = False
        await appending
        found = await done(client, Range(b"log/", b"log0"))
        assert [value for _, value in found.found] == appender.appended
        return appender

    appender: Appender = with_client(etcd, does)
    assert appender.resolved > 0, "an answer was lost, and what became of the entry was found out"


def test_a_user_logs_in_by_password_and_again_when_etcd_forgot_it(etcd: Etcd, authority: Authority) -> None:
    as_user = {"user": USER, "password_file": str(authority.directory / "password")}
    nobodys = {"certificate": str(authority.pem(OTHER)), "key": str(authority.key(OTHER))}

    async def does(client: Client) -> None:
        await done(client, put(b"a"))
        etcd.let_in_anew()
        await done(client, put(b"b"))

    with_client(etcd, does, 2, **as_user, **nobodys)


def test_a_wrong_password_a_missing_role_and_another_prefix_are_refused(
    etcd: Etcd, authority: Authority, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("not this one")

    async def does(client: Client) -> None:
        for request in (put(b"a"), ALL):
            refused = await client.ask(request, LONG)
            assert isinstance(refused, Refused)
            assert refused.why is Why.FORBIDDEN

    with_client(etcd, does, user=USER, password_file=str(wrong))
    with_client(etcd, does, certificate=str(authority.pem(OTHER)), key=str(authority.key(OTHER)))
    with_client(etcd, does, prefix="lnh/other/")
    wrong.chmod(0o644)
    with pytest.raises(FileModeUnsafe):
        with_client(etcd, does, user=USER, password_file=str(wrong))


def test_what_is_too_large_is_refused_and_not_done(etcd: Etcd) -> None:
    async def does(client: Client) -> None:
        await done(client, put(b"fits", bytes(limits.ETCD_REQUEST_BYTES)))
        for size in (1_600_000, 4_000_000):  # etcd's own limit, and its gRPC's
            refused = await client.ask(put(b"large", bytes(size)), LONG)
            assert isinstance(refused, Refused)
            assert refused.why is Why.TOO_LARGE
        assert await keys(client) == {b"fits"}

    with_client(etcd, does)


def test_an_etcd_that_takes_the_place_of_another_is_not_believed(etcd: Etcd, small: Etcd) -> None:
    way = Way(etcd.nodes[0].client_port)

    async def does(client: Client) -> None:
        await done(client, put(b"a"))
        way.lead_to(small.nodes[0].client_port)
        unknown = await client.ask(ALL, LONG)
        assert isinstance(unknown, Unknown)
        assert "another etcd answers" in unknown.text

    try:
        with_client(etcd, does, endpoints=(f"https://127.0.0.1:{way.port}",))
    finally:
        way.end()


def test_no_space_leaves_a_write_unknown_and_reads_as_they_were(small: Etcd) -> None:
    async def does(client: Client) -> None:
        number, outcome = 0, await client.ask(put(b"000", bytes(60_000)), LONG)
        while isinstance(outcome, Done):
            number += 1
            outcome = await client.ask(put(b"%03d" % number, bytes(60_000)), LONG)
        assert isinstance(outcome, Unknown)
        assert outcome.why is Why.NO_SPACE
        assert {b"%03d" % each for each in range(number)} <= await keys(client)
        found = {each.check: each for each in judge(await look(small.settings()))}
        assert found["alarm"].state is State.FAILED
        assert "NOSPACE" in found["alarm"].what
        assert "etcdctl alarm disarm" in found["alarm"].do
        assert "prefix" not in found, "what is permitted cannot be seen"

    with_client(small, does)


# lnh engine check


COMMANDS = tree("engine", "check")


def run(*words: str) -> Result:
    """`lnh engine check`, as a user types it; it starts the process that looks."""
    return CliRunner().invoke(COMMANDS, ["engine", "check", *words])


def options(etcd: Etcd) -> list[str]:
    settings = etcd.settings()
    words = ["--prefix", settings.prefix, "--ca", settings.ca, "--certificate", settings.certificate]
    return [*words, "--key", settings.key, *(word for each in settings.endpoints for word in ("--endpoint", each))]


def test_engine_check_tells_of_a_whole_etcd_and_changes_nothing(etcd: Etcd, tmp_path: Path) -> None:
    async def does(client: Client) -> int:
        return (await done(client, ALL)).revision

    before = with_client(etcd, does)
    settings = etcd.settings()
    ends = ", ".join(f'"{each}"' for each in settings.endpoints)
    (tmp_path / "ca.pem").write_text(Path(settings.ca).read_text())
    file = tmp_path / "engine.toml"
    file.write_text(
        f'name = "A"\n[engine]\nkind = "etcd"\nendpoints = [{ends}]\nprefix = "{PREFIX}"\nca = "ca.pem"\n'
        f'certificate = "{settings.certificate}"\nkey = "{settings.key}"\n'
    )
    table, plain = run("--file", str(file)), run(*options(etcd), "--json")
    assert (table.exit_code, plain.exit_code) == (0, 0), table.output + plain.output
    findings = json.loads(plain.stdout)
    for each in findings:
        assert each["check"] in table.stdout
        assert each["state"] == "ok" or each["do"], each
        if each["check"] not in ("disk", "latency"):  # which are as this machine is
            assert each["what"] in table.stdout
    well = {each["check"] for each in findings if each["state"] == "ok"}
    assert well >= {
        "reach", "client-certificate", "certificate", "clock", "leader", "alarm", "quota", "own-certificate", "one-etcd",
        "nodes", "login", "prefix", "request-size",
    }  # fmt: skip
    assert sum(each["check"] == "version" for each in findings) == 3
    assert with_client(etcd, does) == before


def test_engine_check_ends_with_1_and_says_what_failed(small: Etcd) -> None:
    ended = run(*options(small), "--json")
    assert ended.exit_code == 1, ended.output
    findings = {each["check"]: each for each in json.loads(ended.stdout)}
    wrong = {name: each["state"] for name, each in findings.items() if each["state"] != "ok"}
    assert wrong["client-certificate"] == wrong["login"] == wrong["quota"] == wrong["nodes"] == "warning"
    assert wrong["request-size"] == "failed"
    assert "--max-request-bytes" in findings["request-size"]["do"]


def test_engine_check_says_in_two_lines_what_it_cannot_begin_with(etcd: Etcd, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(Path(etcd.settings().key).read_bytes())
    key.chmod(0o644)
    ended = run(*options(etcd), "--key", str(key))
    assert ended.exit_code == 1
    assert ended.stderr.splitlines() == [
        f"refused: {key} has mode 0644; a file with a secret has 0600",
        f"try: {FileModeUnsafe.advice}",
    ]
    for wrong, said in (
        ({"ca": str(key)}, "no certificates in it"),
        ({"key": str(etcd.authority.key(OTHER))}, "no certificate and its key"),
        ({"certificate": str(key)}, "no certificate, PEM"),
        ({"key": str(tmp_path / "none")}, "No such file"),
    ):
        with pytest.raises(ConfigurationInvalid, match=said):
            asyncio.run(look(etcd.settings(**wrong)))


def test_engine_check_says_of_each_endpoint_what_is_wrong_on_the_way(etcd: Etcd, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = {"certificate": str(authority.pem(USER)), "key": str(authority.key(USER))}
    node, way = etcd.nodes[0], etcd.ways[2]

    async def found() -> list[list[Finding]]:
        mixed = (
            f"https://127.0.0.1:{node.client_port + 1}",  # that of its peers, in clear
            f"https://127.0.0.1:{free_base_port()}",
            f"https://localhost:{node.client_port}",
            "https://no-such-name.invalid:2379",
            f"https://127.0.0.1:{way.port}",
        )
        looks = (
            look(etcd.settings(endpoints=mixed)),
            look(etcd.settings(0, ca=str(authority.file))),
            look(etcd.settings(0, **own)),
            look(etcd.settings(0, prefix="lnh/other/")),
        )
        return [judge(each) for each in await asyncio.gather(*looks)]

    way.cut()
    several, untrusted, stranger, elsewhere = asyncio.run(found())

    def reach(findings: list[Finding]) -> list[str]:
        return [each.what.partition(":")[0] for each in findings if each.check == "reach"]

    assert reach(several) == [
        "what listens there does not speak TLS",
        "nobody listens there",
        "its certificate is for another name",
        "its name is not resolved",
        "it does not answer",
    ]
    assert reach(untrusted) == ["its certificate is of none of the CAs of --ca"]
    assert reach(stranger) == ["it does not take the certificate of this client"]
    forbidden = next(each for each in elsewhere if each.check == "prefix")
    assert (forbidden.state, "permission denied" in forbidden.what) == (State.FAILED, True)
    assert all(each.do for each in (*several, *untrusted, *stranger, *elsewhere) if each.state is not State.OK)
