"""What is done to a simulated cluster from outside: faults, and what administrators ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lnh_common.errors import LnhError
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log.entries import ClusterId, LeaseSettings, MemberId
from lnh_services.store.machine import apply
from lnh_services.store.replication.messages import (
    Effect,
    Instant,
    Order,
    Promote,
    RemoveMember,
    RequestId,
    SetLeaseSettings,
    SetMember,
)
from lnh_services.store.replication.replica import Phase
from simulation import plan as plans
from simulation import regrouping
from simulation.machine import Machine

if TYPE_CHECKING:
    from simulation.world import World


CLUSTER = ClusterId(b"C" * 16)


def ignored(answer: apply.Answer, entry: int) -> None:
    """Administrators look at the cluster, not at the answer."""


class Outside:
    """Each method `do_<kind>` is an action of a plan."""

    def __init__(self, world: World) -> None:
        self.world = world

    def do_crash(self, slot: int, down: float, primary_too: bool) -> None:
        machine = self.world.pick(slot)
        leader = self.world.leader()
        if primary_too and leader is not None:
            machine = leader
        self.world.crash(machine, down)

    def do_crash_between(self, slot: int, effects: int, down: float) -> None:
        machine = self.world.pick(slot)
        machine.starts_at = down
        if machine.process is not None:
            machine.process.ends_after = effects

    def do_power_cut(self, down: float) -> None:
        for machine in self.world.used():
            self.world.crash(machine, down * (1 + machine.slot / 3))

    def do_stall(self, slot: int, effects: int, duration: float) -> None:
        machine = self.world.pick(slot)
        if machine.process is not None:
            machine.process.stalls_after = (effects, duration)

    def do_stall_worker(self, slot: int, number: int, duration: float) -> None:
        workers = self.world.pick(slot).workers
        workers[number % len(workers)].stalled_until = self.world.now + duration

    def do_slow_disk(self, slot: int, duration: float, delay: float) -> None:
        disk = self.world.pick(slot).disk
        disk.slow_until, disk.delay = self.world.now + duration, delay

    def do_full_disk(self, slot: int, duration: float) -> None:
        self.world.pick(slot).disk.full_until = self.world.now + duration

    def do_cut(self, one: int, other: int, duration: float) -> None:
        """One way only."""
        self.world.cut[self.world.pick(one).slot, self.world.pick(other).slot] = self.world.now + duration

    def do_isolate(self, slot: int, duration: float) -> None:
        alone = self.world.pick(slot).slot
        self._part([alone], [slot for slot in range(plans.SLOTS) if slot != alone], duration)

    def do_split(self, mask: int, duration: float) -> None:
        one = [slot for slot in range(plans.SLOTS) if mask >> slot & 1]
        self._part(one, [slot for slot in range(plans.SLOTS) if slot not in one], duration)

    def _part(self, ones: list[int], others: list[int], duration: float) -> None:
        for one in ones:
            for other in others:
                self.world.cut[one, other] = self.world.cut[other, one] = self.world.now + duration

    def do_lose_tail(self, slot: int, after: float, down: float, apart: float) -> None:
        """The primary dies with its last entries on their way to its disk, and one that has them is away meanwhile."""
        leader, other = self.world.leader(), self.world.pick(slot)
        if leader is None or other is leader:
            return
        leader.disk.slow_until, leader.disk.delay = self.world.now + after, 1.0

        def dies() -> None:
            if self.world.settling:
                return
            self._part([other.slot], [slot for slot in range(plans.SLOTS) if slot != other.slot], apart)
            self.world.crash(leader, down)

        self.world.at(self.world.now + after, dies)

    def do_jump(self, slot: int, milliseconds: int) -> None:
        self.world.pick(slot).utc_offset += milliseconds

    def do_join(self, slot: int, number: int) -> None:
        if len(self.world.fresh) > 0 and len(self.world.used()) < self.world.profile.members + 2:
            self.join(self.world.pick(slot), self.world.use_slot())

    def join(self, via: Machine, machine: Machine) -> None:
        process = via.process

        def listed(answer: apply.Answer, entry: int) -> None:
            if isinstance(answer, int) and via.process is process and process is not None:
                self.adopt(machine, process.replica.members)

        self._order(via, SetMember(machine.info), listed)

    def adopt(self, machine: Machine, members: tuple[MemberInfo, ...]) -> None:
        process = machine.process
        if process is None or process.replica.phase is not Phase.NONE or process.requests:
            return
        number = RequestId(self.world.number())
        self.world.trace(machine.slot, "is adopted", None)

        def adopts(now: Instant) -> list[Effect]:
            if process.replica.phase is not Phase.NONE:
                process.withdraw(number)
                return []
            return process.replica.adopt(now, number, CLUSTER, machine.info, members)

        process.ask(number, ignored, adopts)

    def _order(self, via: Machine, order: Order, replied: Callable[[apply.Answer, int], None]) -> None:
        process = via.process
        if process is not None:
            number = RequestId(self.world.number())
            self.world.trace(via.slot, "is asked", order)
            process.ask(number, replied, lambda now: process.replica.submit(now, number, order))

    def do_promote(self, slot: int, number: int) -> None:
        via = self.world.pick(slot)
        target = self._member_of(via, number)
        if target is not None:
            self._order(via, Promote(target), ignored)

    def do_remove(self, slot: int, number: int) -> None:
        via = self.world.pick(slot)
        target = self._member_of(via, number)
        if target is not None and via.process is not None and len(via.process.replica.ids) > 2:
            self._order(via, RemoveMember(target), ignored)

    def _member_of(self, via: Machine, number: int) -> MemberId | None:
        if via.process is None:
            return None
        ids = via.process.replica.ids
        return ids[number % len(ids)] if ids else None

    def do_take_over(self, how: str, long: float, admins: tuple[tuple[int, int, bool, float], ...]) -> None:
        """The primary is lost, or so the administrators think; `long` says for how long it really is."""
        leader = self.world.leader()
        if leader is None:
            return
        if how == "crash":
            self.world.crash(leader, long)
        elif how == "isolate":
            self._part([leader.slot], [slot for slot in range(plans.SLOTS) if slot != leader.slot], long)
        for slot, more, force, patience in admins:
            via = self.world.pick(slot)
            if via is not leader:
                act = self._taking_over(via, leader.id, more, force, patience, 3)
                self.world.at(self.world.now + patience, act)

    def _taking_over(
        self, via: Machine, leader: MemberId, more: int, force: bool, patience: float, tries: int
    ) -> Callable[[], None]:
        """One try of an administrator, who tries again when it is refused."""

        def replied(answer: apply.Answer, entry: int) -> None:
            if isinstance(answer, LnhError) and tries > 1:
                again = self._taking_over(via, leader, more, force, patience, tries - 1)
                self.world.at(self.world.now + patience / 3, again)

        def takes_over() -> None:
            process = via.process
            if process is None or self.world.settling or process.replica.phase is not Phase.MEMBER:
                return
            others = [id_ for id_ in process.replica.ids if id_ not in (leader, via.id)]
            lost = frozenset([leader, *others[:more]])
            self.world.truth.lost.setdefault(via.id, []).append((lost, force))
            number = RequestId(self.world.number())
            names = sorted(self.world.slots[member] for member in lost)
            self.world.trace(via.slot, "is to take over", (names, force))
            process.ask(number, replied, lambda now: process.replica.take_over(now, number, lost, force=force))

        return takes_over

    def do_lease_settings(self, slot: int, lease_ms: int) -> None:
        self._order(self.world.pick(slot), SetLeaseSettings(LeaseSettings(lease_ms=lease_ms)), ignored)

    def do_regroup(self, slot: int, number: int, label: int, kind: int, again: tuple[tuple[int, float], ...]) -> None:
        """An order about groups, repeated as one does who was told nothing."""
        via = self.world.pick(slot)
        target = self._member_of(via, number)
        if target is None:
            return
        request = self.world.number().to_bytes(16, "big")
        asked = regrouping.order(kind, label, target, request)

        def ask(through: Machine) -> None:
            self._order(through, asked, lambda answer, _: self.world.regrouped.note(request, answer))

        ask(via)
        for other, delay in again:
            self.world.at(self.world.now + delay, lambda other=other: ask(self.world.pick(other)))  # type: ignore[misc]

    def do_look(self, slot: int) -> None:
        process = self.world.pick(slot).process
        if process is not None and process.replica.phase is Phase.MEMBER:
            number = RequestId(self.world.number())
            process.ask(number, ignored, lambda now: process.replica.acknowledge_divergence(now, number))
