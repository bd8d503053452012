"""The appliance's order of things: what each act of the local console needs first, and how it changes the state.

Pure. One row an operation in `NEEDS`; every refusal names the condition that is missing.

    appliance.init   -+
    hsm.init          +-> package.install -> cluster.create or cluster.join -> (served by the workers)
    hsm.activate     -+
    partition.*  only without the cluster package, whose installation disables them for good
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import (
    AlreadyDone,
    ArgumentInvalid,
    LimitReached,
    LnhError,
    MemberExpelled,
    NameTaken,
    NameUnknown,
    NoCluster,
    NotActivated,
    NotInitialised,
    NotPossible,
    PartitionDisabled,
    PartitionUnknown,
    UnknownOperation,
)
from lnh_common.messages import console
from lnh_common.messages.console import Officer, PartitionView
from lnh_services.hsm.appliance.state import CLUSTER_PACKAGE, Appliance, HsmState, Partition, Phase, User
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier

ADMIN: Final = "admin"
PACKAGES: Final = (CLUSTER_PACKAGE,)


@dataclass(frozen=True)
class Situation:
    """The situation of an appliance: whether its HSM has a state, and that state while it is activated."""

    appliance: Appliance
    initialised: bool
    state: HsmState | None

    @property
    def name(self) -> str:
        """The state's name, as `HsmView.state` tells it."""
        if not self.initialised:
            return "uninitialised"
        return "sealed" if self.state is None else "activated"

    @property
    def users(self) -> tuple[User, ...]:
        """The appliance's own users that are known now."""
        return self.appliance.waiting + (self.state.users if self.state else ())


Need = Callable[[Situation], LnhError | None]


def _hsm_initialised(now: Situation) -> LnhError | None:
    return None if now.initialised else NotInitialised("the HSM is not initialised: lnh hsm init")


def _hsm_not_initialised(now: Situation) -> LnhError | None:
    return AlreadyDone("the HSM is initialised; a factory reset would erase it") if now.initialised else None


def _activated(now: Situation) -> LnhError | None:
    return None if now.state else NotActivated("the HSM is not activated")


def _not_activated(now: Situation) -> LnhError | None:
    return AlreadyDone("the HSM is activated") if now.state else None


def _appliance_initialised(now: Situation) -> LnhError | None:
    if now.appliance.initialised:
        return None
    return NotInitialised("the appliance has no admin yet: lnh appliance init")


def _appliance_not_initialised(now: Situation) -> LnhError | None:
    return AlreadyDone("the appliance has its first admin") if now.appliance.initialised else None


def _cluster_package(now: Situation) -> LnhError | None:
    if now.state and CLUSTER_PACKAGE in now.state.packages:
        return None
    return NotInitialised("the cluster package is not installed: lnh package install cluster")


def _partitions_enabled(now: Situation) -> LnhError | None:
    if now.state and CLUSTER_PACKAGE in now.state.packages:
        return PartitionDisabled("the cluster package has disabled this appliance's own partitions")
    return None


def _no_own_v1_partition(now: Situation) -> LnhError | None:
    own = [partition.label for partition in own_partitions(now.state) if partition.version == 1] if now.state else []
    if own:
        return NotPossible(f"the appliance has V1 partitions of its own ({', '.join(own)}): a cluster is refused")
    return None


def _no_v1_partition_to_lose(now: Situation) -> LnhError | None:
    own = [partition.label for partition in own_partitions(now.state) if partition.version == 1] if now.state else []
    if not own:
        return None
    return NotPossible(
        f"the appliance has V1 partitions ({', '.join(own)}): the package would disable them, and a cluster is refused "
        "where there are any",
        {"advice": f"keep the appliance as it is, or delete them first: lnh partition delete {own[0]}"},
    )


def _no_cluster(now: Situation) -> LnhError | None:
    cluster = now.state.cluster if now.state else None
    if cluster and cluster.phase is Phase.CREATED:
        return AlreadyDone(f"this member has the cluster {cluster.label}; one cluster per appliance")
    return None


def _joins_none(now: Situation) -> LnhError | None:
    return _unfinished(now, Phase.JOINING, Phase.LEAVING, Phase.SUSPENDED)


def _creates_none(now: Situation) -> LnhError | None:
    return _unfinished(now, Phase.CREATING, Phase.LEAVING, Phase.SUSPENDED)


def _unfinished(now: Situation, *phases: Phase) -> LnhError | None:
    cluster = now.state.cluster if now.state else None
    if cluster and cluster.phase is Phase.SUSPENDED and Phase.SUSPENDED in phases:
        return MemberExpelled(f"this member was expelled from {cluster.label}: lnh cluster leave wipes what it keeps")
    if cluster and cluster.phase in phases:
        begun = f"{cluster.phase.value} the cluster {cluster.label} was begun here"
        return NotPossible(f"{begun} and is to be finished first")
    return None


def _holds_cluster(now: Situation) -> LnhError | None:
    cluster = now.state.cluster if now.state else None
    if cluster and cluster.phase is Phase.CREATED:
        return None
    return NoCluster("this HSM holds no cluster's secrets, and an archive opens with its own cluster's only")


def _was_expelled(now: Situation) -> LnhError | None:
    if now.state and (now.state.expelled or now.state.discarded):
        return None
    return AlreadyDone("this member was expelled from no cluster: there is nothing to erase")


def serving(now: Situation) -> LnhError | None:
    """Say why this HSM's workers can serve nobody until an operator acts; None where they serve, or may begin to.

    Returns: NotActivated, MemberExpelled, or NoCluster, each with what the member is.
    """
    if not now.initialised:
        return NoCluster("this member serves no cluster: its HSM is not initialised")
    if now.state is None:
        return NotActivated("this member is sealed: its HSM is not activated")
    cluster = now.state.cluster
    if cluster is not None and cluster.phase is Phase.CREATED:
        return None
    if now.state.expelled:
        return MemberExpelled("this member was removed from its cluster")
    return NoCluster(f"this member serves no cluster: {_BELONGS[cluster.phase] if cluster else 'it is in none'}")


_BELONGS: Final = {
    Phase.CREATING: "one was begun here and not finished",
    Phase.JOINING: "it joins one and has not finished",
    Phase.SUSPENDED: "it was told that it is in none any more",
    Phase.LEAVING: "it leaves the one it was in",
}

_ACTIVE: Final = (_hsm_initialised, _activated)

NEEDS: Final[dict[str, tuple[Need, ...]]] = {
    console.APPLIANCE_INIT.name: (_appliance_not_initialised,),
    console.APPLIANCE_SHOW.name: (),
    console.APPLIANCE_RESET_ADMIN.name: (*_ACTIVE, _appliance_initialised),
    console.APPLIANCE_REIMAGE.name: (),
    console.HSM_INIT.name: (_hsm_not_initialised,),
    console.HSM_SHOW.name: (),
    console.HSM_ACTIVATE.name: (_hsm_initialised, _not_activated),
    console.HSM_DEACTIVATE.name: _ACTIVE,
    console.HSM_DRAW_SHARES.name: _ACTIVE,
    console.HSM_SET_ACTIVATION.name: _ACTIVE,
    console.HSM_FACTORY_RESET.name: _ACTIVE,
    console.HSM_PASSWORD.name: _ACTIVE,
    console.PACKAGE_INSTALL.name: (*_ACTIVE, _no_v1_partition_to_lose),
    console.PARTITION_CREATE.name: (*_ACTIVE, _partitions_enabled),
    console.PARTITION_LIST.name: _ACTIVE,
    console.PARTITION_DELETE.name: (*_ACTIVE, _partitions_enabled),
    console.PARTITION_PASSWORD.name: (*_ACTIVE, _partitions_enabled),
    console.PARTITION_SEND.name: (*_ACTIVE, _partitions_enabled),
    **{row.name: (*_ACTIVE, _partitions_enabled) for row in console.IN_PARTITION.values()},
    console.CLUSTER_CREATE.name: (
        *_ACTIVE, _no_cluster, _joins_none, _appliance_initialised, _cluster_package, _no_own_v1_partition,
    ),
    console.CLUSTER_JOIN.name: (*_ACTIVE, _no_cluster, _creates_none, _cluster_package, _no_own_v1_partition),
    console.CLUSTER_PROGRESS.name: _ACTIVE,
    console.CLUSTER_DISCARD.name: (*_ACTIVE, _was_expelled),
    console.CLUSTER_RESTORE.name: (*_ACTIVE, _holds_cluster),
    console.SMK_RESTORE.name: (
        *_ACTIVE, _no_cluster, _joins_none, _creates_none, _cluster_package, _no_own_v1_partition,
    ),
    console.RESTORE_JOB.name: _ACTIVE,
    console.CONSOLE_CHECK.name: (),
    console.CONSOLE_CLUSTER.name: (),
    console.AUDIT_VERIFY.name: (),
    console.AUDIT_SHOW.name: (),
}  # fmt: skip


def check(operation: str, now: Situation) -> None:
    """Raise the error of the first condition of `operation` that does not hold."""
    for need in NEEDS[operation]:
        problem = need(now)
        if problem:
            raise problem


def check_target(operation: str, target: str, now: Situation) -> None:
    """Check all that is known of an act before it begins; raises the error that forbids it, or UnknownOperation."""
    if operation not in NEEDS:
        raise UnknownOperation(f"the console has no operation {operation!r}")
    check(operation, now)
    if now.state is not None and operation in _TARGETS:
        _TARGETS[operation](now.state, target)


def own_partitions(state: HsmState) -> tuple[Partition, ...]:
    """Return the appliance's own partitions: all but the cluster's."""
    serial = state.cluster.partition if state.cluster else ""
    return tuple(partition for partition in state.partitions if partition.serial != serial)


def views(state: HsmState, objects: Callable[[str], int]) -> tuple[PartitionView, ...]:
    """View the partitions as the console shows them; `objects` counts those of the one with this serial."""
    disabled = own_partitions(state) if CLUSTER_PACKAGE in state.packages else ()
    return tuple(
        PartitionView(
            label=partition.label,
            version=partition.version,
            serial=partition.serial,
            objects=objects(partition.serial),
            accessible=partition not in disabled,
        )
        for partition in state.partitions
    )


def take_waiting_users(state: HsmState, appliance: Appliance) -> HsmState:
    """Add the users that waited for the HSM to its state; a user that it has already stays as it is."""
    known = {user.name for user in state.users}
    return replace(state, users=state.users + tuple(user for user in appliance.waiting if user.name not in known))


def install(state: HsmState, package: str) -> HsmState:
    """Add a package to the state; raises NameUnknown, AlreadyDone."""
    if package not in PACKAGES:
        raise NameUnknown(f"no package {package!r}; there is: {', '.join(PACKAGES)}")
    if package in state.packages:
        raise AlreadyDone(f"the {package} package is installed")
    return replace(state, packages=(*state.packages, package))


def add_partition(state: HsmState, partition: Partition) -> HsmState:
    """Add a partition to the state; raises NameTaken, LimitReached."""
    check_room(state, partition.label)
    return replace(state, partitions=(*state.partitions, partition))


def check_room(state: HsmState, label: str) -> None:
    """Raise NameTaken or LimitReached when no partition of this label can be made."""
    if any(other.label == label for other in state.partitions):
        raise NameTaken(f"there is a partition {label}")
    if len(state.partitions) >= limits.PARTITIONS:
        raise LimitReached(
            f"{limits.PARTITIONS} partitions, which is the limit of an HSM",
            {"advice": "delete one that is not needed: lnh partition list"},
        )


def find_partition(state: HsmState, label: str) -> Partition:
    """Find the partition of this label; raises PartitionUnknown."""
    for partition in state.partitions:
        if partition.label == label:
            return partition
    raise PartitionUnknown(f"no partition {label!r}")


def with_officer(state: HsmState, label: str, officer: Officer, kept: Verifier) -> HsmState:
    """Replace the verifier of a partition's PO or CO in the state."""
    changed = {officer.value: kept}
    return replace(
        state,
        partitions=tuple(replace(other, **changed) if other.label == label else other for other in state.partitions),
    )


def remove_partition(state: HsmState, label: str) -> HsmState:
    """Remove a partition from the state; raises PartitionUnknown."""
    find_partition(state, label)
    return replace(state, partitions=tuple(other for other in state.partitions if other.label != label))


def reset_password(users: tuple[User, ...], name: str, password: KeptPassword) -> tuple[User, ...]:
    """Replace the password of one admin among the users; raises NameUnknown, ArgumentInvalid."""
    for user in users:
        if user.name == name:
            check_is_admin(user.name, user.role)
            return tuple(replace(other, password=password) if other is user else other for other in users)
    raise NameUnknown(f"no appliance user {name}")


def check_is_admin(name: str, role: str) -> None:
    """Raise ArgumentInvalid for a user that is no admin: the SO resets admins, and admins reset all others."""
    if role != ADMIN:
        raise ArgumentInvalid(f"{name} has the role {role}; the SO resets admins only")


# What forbids an act because of what it is about.
_TARGETS: Final[dict[str, Callable[[HsmState, str], object]]] = {
    console.PACKAGE_INSTALL.name: install,
    console.PARTITION_CREATE.name: check_room,
    console.PARTITION_DELETE.name: find_partition,
    console.PARTITION_PASSWORD.name: find_partition,
    console.PARTITION_SEND.name: find_partition,
}
