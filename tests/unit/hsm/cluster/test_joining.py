"""Two HSMs: one lets the other into its cluster, or refuses and says why; nothing is half done after a crash."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import lnh_common
from lnh_common import errors, limits
from lnh_common.messages import console, store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.hsm import Depart, Departure
from lnh_common.wire import codec
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.cluster import create, join_protocol, removal_proof
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from models.console import SO, OneAppliance, member

DOMAIN = "the cloning domain"


class Two:
    """An inviting appliance with a cluster, and one that wants to join it."""

    def __init__(self, directory: Path) -> None:
        for name in ("a", "b"):
            (directory / name).mkdir()
        self.a = OneAppliance(directory / "a", "a", 7100)
        self.b = OneAppliance(directory / "b", "b", 7200)
        self.b.membership.peers = {7101: self.a}

    async def ready(self) -> str:
        await self.a.cluster(DOMAIN)
        self.a.store.members = (member("a", 1, 7100),)
        await self.b.appliance_init()
        await self.b.hsm_init(DOMAIN)
        await self.b.install()
        return await self.a.invite()


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_a_joining_hsm_gets_the_same_smk_identity_and_seeds_and_a_partition_for_them(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        joined = await two.b.join(text)
        a, b = two.a.vault.opened.cluster, two.b.vault.opened.cluster
        assert a is not None
        assert b is not None
        assert (b.id, b.label, b.identity, b.smk, b.channel) == (a.id, a.label, a.identity, a.smk, a.channel)
        assert b.member != a.member
        assert b.phase is Phase.CREATED
        assert [(p.version, p.serial) for p in two.b.vault.opened.partitions] == [(1, b.partition)]
        assert two.b.vault.opened.users == ()
        assert two.b.vault.opened.joining is None
        assert two.b.workers.running
        assert {each.name for each in two.a.store.members} == {"a", "b"}
        assert two.b.store.cluster == a.id
        assert two.b.store.members == two.a.store.members
        assert joined.fingerprint == (await two.a.ask(console.CONSOLE_CLUSTER)).fingerprint
        assert joined.member == b.member.hex()

    asyncio.run(go())


def test_a_joined_member_lets_others_in(two: Two, tmp_path: Path) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        two.b.store.items = two.a.store.items  # it is in step
        (tmp_path / "c").mkdir()
        c = OneAppliance(tmp_path / "c", "c", 7300)
        c.membership.peers = {7201: two.b}
        await c.hsm_init(DOMAIN)
        await c.install()
        await c.join(await two.b.invite())
        assert c.vault.opened.cluster is not None
        assert two.a.vault.opened.cluster is not None
        assert c.vault.opened.cluster.smk == two.a.vault.opened.cluster.smk

    asyncio.run(go())


def test_who_joins_after_a_rollover_gets_every_generation_and_the_key_of_names(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        await two.a.roll_over()
        await two.b.join(text)
        a, b = two.a.vault.opened.cluster, two.b.vault.opened.cluster
        assert a is not None
        assert b is not None
        assert [each.generation for each in b.smk] == [1, 2]
        assert (b.smk, b.lookup) == (a.smk, a.lookup)
        assert b.lookup == Purpose.RECORD.derive(a.smk[0].key)
        assert b.records().tag("alice") == a.records().tag("alice")

    asyncio.run(go())


def test_another_domain_burns_the_invitation_and_gets_nothing(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        await two.b.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        await two.b.hsm_init("another domain")
        with pytest.raises(errors.DomainMismatch, match="cloning domain"):
            await two.b.join(text)
        assert {each.name for each in two.a.store.members} == {"a"}
        assert two.b.vault.opened.joining is None
        await two.b.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        await two.b.hsm_init(DOMAIN)
        two.a.restart()
        await two.a.activate()
        with pytest.raises(errors.InvitationBurnt):
            await two.b.join(text)
        assert two.b.vault.opened.cluster is None

    asyncio.run(go())


def test_an_invitation_serves_one_member(two: Two, tmp_path: Path) -> None:
    async def go() -> None:
        text = await two.ready()
        await two.b.join(text)
        (tmp_path / "c").mkdir()
        c = OneAppliance(tmp_path / "c", "c", 7300)
        c.membership.peers = {7101: two.a}
        await c.hsm_init(DOMAIN)
        await c.install()
        with pytest.raises(errors.InvitationUsed):
            await c.join(text)
        assert c.vault.opened.joining is None

    asyncio.run(go())


def test_an_invitation_lasts_a_quarter_of_an_hour_by_either_clock(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        two.a.now += limits.INVITATION_SECONDS
        with pytest.raises(errors.InvitationExpired):
            await two.b.join(text)
        two.b.now += limits.INVITATION_SECONDS + limits.CLOCK_TOLERANCE + 1
        two.b.membership.asked.clear()
        with pytest.raises(errors.InvitationExpired):
            await two.b.join(text)
        assert two.b.membership.asked == []

    asyncio.run(go())


def test_an_invitation_of_another_hsm_is_unknown_here(two: Two, tmp_path: Path) -> None:
    async def go() -> None:
        await two.ready()
        (tmp_path / "c").mkdir()
        other = OneAppliance(tmp_path / "c", "a", 7100)
        await other.cluster(DOMAIN)
        with pytest.raises(errors.InvitationUnknown):
            await two.b.join(await other.invite())

    asyncio.run(go())


async def _own_v1(two: Two) -> None:
    await two.b.appliance_init()
    await two.b.hsm_init(DOMAIN)
    await two.b.partition("mine", version=1)
    two.b.vault.change(lambda state: preconditions.install(state, "cluster"))  # as an earlier version let one


async def _in_a_cluster(two: Two) -> None:
    await two.b.cluster(DOMAIN)


async def _without_package(two: Two) -> None:
    await two.b.hsm_init(DOMAIN)


async def _sealed(two: Two) -> None:
    await two.b.hsm_init(DOMAIN)
    await two.b.install()
    await two.b.deactivate()


async def _nothing(two: Two) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "error", "words"),
    [
        (_own_v1, errors.NotPossible, "V1 partitions of its own .mine."),
        (_in_a_cluster, errors.AlreadyDone, "one cluster per appliance"),
        (_without_package, errors.NotInitialised, "package"),
        (_sealed, errors.NotActivated, "not activated"),
        (_nothing, errors.NotInitialised, "not initialised"),
    ],
)
def test_a_refusal_of_the_joining_side_says_which_condition_failed_and_uses_nothing(
    two: Two, before: Callable[[Two], Awaitable[None]], error: type[errors.LnhError], words: str
) -> None:
    async def go() -> None:
        await two.a.cluster(DOMAIN)
        await before(two)
        two.b.membership.asked.clear()
        with pytest.raises(error, match=words):
            await two.b.join(await two.a.invite())
        assert two.b.membership.asked == []

    asyncio.run(go())


def test_a_name_or_address_that_is_taken_is_refused_and_the_invitation_still_good(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        two.b.membership.name = "a"
        with pytest.raises(errors.NameTaken, match="a member a"):
            await two.b.join(text)
        two.b.membership.name, two.b.membership.port = "b", 7100
        with pytest.raises(errors.NameTaken, match="the address"):
            await two.b.join(text)
        two.b.membership.port = 7200
        await two.b.join(text)

    asyncio.run(go())


def test_nobody_is_let_in_through_a_read_only_member(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        two.a.store.state = "read-only"
        with pytest.raises(errors.MemberReadOnly):
            await two.a.invite()
        with pytest.raises(errors.MemberReadOnly):
            await two.b.join(text)
        two.a.store.state = "read-write"
        await two.b.join(text)

    asyncio.run(go())


def test_the_store_must_not_hold_another_clusters_data(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        two.b.store.cluster = bytes(16)[:-1] + b"x"
        with pytest.raises(errors.NotPossible, match="another cluster"):
            await two.b.join(text)

    asyncio.run(go())


async def loses_an_answer(two: Two, text: str) -> None:
    """One attempt to join whose answer never came."""

    def lost(reply: bytes) -> bytes:
        raise errors.OutcomeUnknown("the answer was lost")

    two.b.membership.change_reply = lost
    with pytest.raises(errors.OutcomeUnknown):
        await two.b.join(text)
    two.b.membership.change_reply = bytes


def test_a_lost_answer_is_given_again_to_the_same_attempt_also_after_restarts(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        await loses_an_answer(two, text)
        (ghost,) = (each for each in two.a.store.members if each.name == "b")
        for appliance in (two.a, two.b):
            appliance.restart()
            await appliance.activate()
        joined = await two.b.join(text)
        assert joined.member == ghost.id.hex()
        assert len(two.a.store.members) == 2
        assert two.b.membership.renewed == 1

    asyncio.run(go())


def test_an_attempt_that_was_given_up_leaves_a_new_one_another_id_and_key(two: Two) -> None:
    async def go() -> None:
        text = await two.ready()
        await loses_an_answer(two, text)
        (ghost,) = (each for each in two.a.store.members if each.name == "b")
        second = await two.a.invite()
        with pytest.raises(errors.NameTaken, match="lnh member delete"):
            await two.b.join(second)
        two.a.store.members = tuple(each for each in two.a.store.members if each.name != "b")
        await two.b.join(second)
        (now,) = (each for each in two.a.store.members if each.name == "b")
        assert now.id != ghost.id
        assert now.key != ghost.key

    asyncio.run(go())


class Died(BaseException):
    """The core's process ended here."""


def dying(two: Two, step: int, *, answered: bool) -> None:
    """The joiner's core dies at its `step`th question to another service: before it is asked, or once it is answered."""
    questions = 0

    def watched(ask: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def asked(*words: object, **named: object) -> object:
            nonlocal questions
            questions += 1
            if questions == step and not answered:
                raise Died
            answer = await ask(*words, **named)
            if questions == step:
                raise Died
            return answer

        return asked

    for service in (two.b.store, two.b.membership):
        service.ask = watched(service.ask)  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_joiner_that_dies_at_any_step_finishes_when_the_command_is_run_again(
    two: Two, step: int, answered: bool
) -> None:
    async def go() -> None:
        text = await two.ready()
        store_ask, membership_ask = two.b.store.ask, two.b.membership.ask
        dying(two, step, answered=answered)
        with pytest.raises(Died):
            await two.b.belonging._join(console.JoinCluster(so_password=SO, invitation=text))
        two.b.store.ask, two.b.membership.ask = store_ask, membership_ask  # type: ignore[method-assign]
        two.b.restart()
        await two.b.activate()
        await two.b.join(text)
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        assert cluster.phase is Phase.CREATED
        assert two.b.vault.opened.joining is None
        assert {each.id for each in two.a.store.members} == {two.a.store.members[0].id, cluster.member}
        assert two.b.store.cluster == two.a.store.cluster
        assert len(two.b.vault.opened.partitions) == 1

    asyncio.run(go())


@pytest.mark.parametrize("answered", [False, True])
def test_an_inviter_that_dies_while_it_answers_can_be_asked_again(two: Two, answered: bool) -> None:
    async def go() -> None:
        text = await two.ready()
        ask = two.a.store.ask

        async def dies(operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
            if answered:
                await ask(operation, message, timeout=timeout)
            if operation is store.MEMBER_SET:
                raise errors.OutcomeUnknown("the connection broke")
            return await ask(operation, message, timeout=timeout)

        two.a.store.ask = dies  # type: ignore[method-assign]
        with pytest.raises(errors.OutcomeUnknown):
            await two.b.join(text)
        two.a.store.ask = ask  # type: ignore[method-assign]
        two.a.restart()
        await two.a.activate()
        await two.b.join(text)
        assert len(two.a.store.members) == 2

    asyncio.run(go())


def test_a_join_that_was_begun_stands_in_the_way_of_a_cluster_and_of_another_join(two: Two, tmp_path: Path) -> None:
    async def go() -> None:
        text = await two.ready()
        ask = two.b.store.ask

        async def no_adopt(operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
            if operation is store.ADOPT:
                raise errors.Unreachable("no store")
            return await ask(operation, message, timeout=timeout)

        two.b.store.ask = no_adopt  # type: ignore[method-assign]
        with pytest.raises(errors.Unreachable):
            await two.b.join(text)
        assert not two.b.workers.running
        with pytest.raises(errors.NotPossible, match="joining the cluster prod was begun"):
            await two.b.cluster_create()
        (tmp_path / "c").mkdir()
        other = OneAppliance(tmp_path / "c", "c", 7300)
        await other.cluster(DOMAIN)
        with pytest.raises(errors.NotPossible, match="finished first"):
            await two.b.join(await other.invite())
        two.b.store.ask = ask  # type: ignore[method-assign]
        await two.b.join(text)

    asyncio.run(go())


def dismissal_of(cluster: Cluster) -> bytes:
    return removal_proof.dismissal(cluster.smk[-1].key, cluster.id, cluster.member)


def test_no_peer_can_make_an_hsm_wipe_its_smk_without_another_hsms_dismissal(two: Two) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        of_another = removal_proof.dismissal(cluster.smk[-1].key, cluster.id, two.a.store.members[0].id)
        for departure in (Departure.LEFT, Departure.DELETED):
            with pytest.raises(errors.PermissionDenied):
                await two.b.belonging.depart(Depart(cluster=cluster.id, departure=departure, proof=of_another))
        lie = Depart(cluster=cluster.id, departure=Departure.EXPELLED, reason="entry 7", proof=of_another)
        await two.b.belonging.depart(lie)
        await two.b.belonging.finish()
        kept = two.b.vault.opened.cluster
        assert kept is not None
        assert (kept.smk, kept.phase, two.b.workers.running) == (cluster.smk, Phase.SUSPENDED, 0)
        two.b.restart()
        await two.b.activate()
        assert not two.b.workers.running
        with pytest.raises(errors.MemberExpelled):
            await two.b.join(await two.a.invite())
        proven = Depart(cluster=cluster.id, departure=Departure.EXPELLED, proof=dismissal_of(cluster))
        await two.b.belonging.depart(proven)
        await two.b.belonging.finish()
        assert two.b.vault.opened.cluster is None

    asyncio.run(go())


def test_the_so_wipes_what_an_expelled_member_kept_for_want_of_a_proof(two: Two) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        await two.b.belonging.depart(Depart(cluster=cluster.id, departure=Departure.EXPELLED))
        await two.b.ask(console.CLUSTER_DISCARD, console.AsSo(so_password=SO))
        assert two.b.vault.opened.cluster is None
        assert not two.b.store.cluster

    asyncio.run(go())


@pytest.mark.parametrize("departure", list(Departure))
def test_who_leaves_keeps_nothing_of_the_cluster(two: Two, departure: Departure) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        await two.b.belonging.depart(Depart(cluster=bytes(16), departure=departure))
        assert two.b.vault.opened.cluster is cluster, "that was about another cluster"
        reason = "removed in entry 7"
        depart = Depart(cluster=cluster.id, departure=departure, reason=reason, proof=dismissal_of(cluster))
        await two.b.belonging.depart(depart)
        await two.b.belonging.finish()
        state = two.b.vault.opened
        for secret in (cluster.identity, *(each.key for each in cluster.smk), *(each.seed for each in cluster.channel)):
            assert secret not in codec.encode(state)
        assert (state.cluster, state.partitions, two.b.workers.running) == (None, (), 0)
        expelled = departure is Departure.EXPELLED
        assert state.expelled == ("removed in entry 7" if expelled else "")
        assert bool(two.b.store.cluster) is expelled, "an expelled member's store is kept until somebody has looked"
        assert (await two.b.ask(console.CONSOLE_CLUSTER)).expelled == state.expelled
        if expelled:
            await two.b.ask(console.CLUSTER_DISCARD, console.AsSo(so_password=SO))
            assert not two.b.store.cluster
        two.a.store.members = two.a.store.members[:1]
        await two.b.join(await two.a.invite())
        again = two.b.vault.opened.cluster
        assert again is not None
        assert again.member != cluster.member
        assert two.b.membership.renewed == 2

    asyncio.run(go())


def test_an_expelled_member_joins_again_without_being_tidied_first(two: Two) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        depart = Depart(cluster=cluster.id, departure=Departure.EXPELLED, proof=dismissal_of(cluster))
        await two.b.belonging.depart(depart)
        await two.b.belonging.finish()
        two.a.store.members = two.a.store.members[:1]
        await two.b.join(await two.a.invite())
        assert two.b.vault.opened.expelled == ""
        assert two.b.store.cluster == cluster.id

    asyncio.run(go())


def test_a_departure_that_was_interrupted_is_finished_after_the_next_activation(two: Two) -> None:
    async def go() -> None:
        await two.b.join(await two.ready())
        cluster = two.b.vault.opened.cluster
        assert cluster is not None
        two.b.vault.change(lambda state: create.departing(state, Phase.LEAVING, Departure.LEFT, ""))
        two.b.restart()
        await two.b.activate()
        assert not two.b.workers.running
        await two.b.belonging.finish()
        assert two.b.vault.opened.cluster is None
        assert not two.b.store.cluster

    asyncio.run(go())


def test_a_version_before_the_clusters_is_not_let_in_and_the_invitation_still_good(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        text = await two.ready()
        request = join_protocol.request

        def of_before(*words: Any, **named: Any) -> bytes:
            return request(*words, **{**named, "product": "0.1.9"})

        with monkeypatch.context() as joiner:
            joiner.setattr(join_protocol, "request", of_before)
            with pytest.raises(errors.UnsupportedVersion, match=r"version is 0\.2, and this member runs 0\.1\.9"):
                await two.b.join(text)
        await two.b.join(text)

    asyncio.run(go())


@pytest.mark.parametrize(("version", "fits"), [("0.2.0", True), ("0.3.0", False), ("0.9.0", False)])
def test_a_version_too_far_away_is_refused_and_the_invitation_still_good(
    two: Two, version: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        monkeypatch.setattr(lnh_common, "VERSION", "0.1.0")
        text = await two.ready()
        request = join_protocol.request

        def of_another(*words: Any, **named: Any) -> bytes:
            return request(*words, **{**named, "product": version})

        with monkeypatch.context() as joiner:
            joiner.setattr(join_protocol, "request", of_another)
            if fits:
                await two.b.join(text)
            else:
                with pytest.raises(errors.UnsupportedVersion, match=re.escape(version)):
                    await two.b.join(text)
        if not fits:
            await two.b.join(text)
        assert {each.name for each in two.a.store.members} == {"a", "b"}

    asyncio.run(go())
