"""Brings this HSM into a cluster that exists, lets others in, and leaves: the acts of the core.

    join     at the local console: proof to the inviting HSM, its answer installed, the store told
    invite   asked by a worker, for an admin and the PO
    admit    asked by membership: another HSM's request, checked and answered
    depart   told by membership: left, expelled, or the cluster deleted; what this HSM held of it is wiped

Each step is durable before the next begins and safe to repeat: a join that was interrupted goes on, with the same
words, when the command is run again. The messages between HSMs are in `join_protocol.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

import lnh_common
from lnh_common import limits, text
from lnh_common.errors import (
    ArgumentInvalid,
    DomainMismatch,
    InvitationBurnt,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    LimitReached,
    LnhError,
    MemberReadOnly,
    NameTaken,
    NoCluster,
    NotPossible,
    PermissionDenied,
    UnsupportedVersion,
)
from lnh_common.events import Log
from lnh_common.messages import console, hsm, membership, store
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.store import MemberInfo
from lnh_common.versions import check_compatible, check_takes_part
from lnh_common.wire import channel
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cluster, Joining, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.cluster import create, invitations, join_protocol, removal_proof
from lnh_services.hsm.cluster.join_protocol import Invitation
from lnh_services.hsm.records import CLUSTER_RECORD, ClusterRecord

STORE_SECONDS: Final = 5.0
STATUS_SECONDS: Final = 2.0
JOIN_SECONDS: Final = 40.0  # two Argon2id of 256 MiB on slow machines, and an entry committed
_NONCE: Final = 32
_ID: Final = 16

# After one of these the request was not used and never will be, so nothing of it is kept.
FINAL: Final = (
    DomainMismatch, InvitationBurnt, InvitationExpired, InvitationUnknown, InvitationUsed, UnsupportedVersion,
    NameTaken, LimitReached, NotPossible,
)  # fmt: skip

_log: Final = Log("hsm.belonging")


class Belonging:
    """Carries out joining and leaving for one core; made and used within a running loop.

    Args:
        derive: runs one Argon2id elsewhere.
        store, membership: ask this member's.
        take_smks: holds the generations of the SMK that are shared by now.
        clock: UTC seconds.
    """

    def __init__(
        self,
        vault: Vault,
        desk: Desk,
        *,
        derive: Callable[[hsm.Derive], Awaitable[bytes]],
        store: Asks,
        membership: Asks,
        take_smks: Callable[[], Awaitable[object]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault: Final = vault
        self._desk: Final = desk
        self._derive: Final = derive
        self._store: Final = store
        self._membership: Final = membership
        self._take_smks: Final = take_smks
        self._clock: Final = clock
        self._admitting: Final = asyncio.Lock()
        self._departing: asyncio.Task[None] | None = None

    def performers(self) -> dict[str, Callable[[Any], Awaitable[Message]]]:
        """Return the operations of the local console that are carried out here."""
        return {
            console.CLUSTER_JOIN.name: self._join,
            console.CLUSTER_PROGRESS.name: self._progress,
            console.CLUSTER_DISCARD.name: self._discard_rest,
        }

    # --- joining

    async def _join(self, request: console.JoinCluster) -> console.JoinedCluster:
        await self._desk.authorise(request)
        invitation = Invitation.parse(request.invitation)
        cluster, warning = self._vault.opened.cluster, ""
        if cluster is None:
            await self.check_store()
            warning = await self._admitted(invitation, request.invitation)
            cluster = self._vault.opened.cluster
            assert cluster is not None, "what was admitted was installed"
        elif cluster.id != invitation.cluster:
            raise NotPossible(f"the cluster {cluster.label} was joined and is to be finished first, by its invitation")
        await self._adopt(cluster)
        return console.JoinedCluster(
            label=cluster.label,
            cluster=cluster.id.hex(),
            fingerprint=channel.fingerprint(cluster.identity_public()),
            member=cluster.member.hex(),
            warning=warning,
        )

    async def check_store(self) -> None:
        """Empty the store; raises NotPossible when it holds data that is not known to be worthless."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if not status.cluster:
            return
        if status.cluster != self._vault.opened.discarded:
            raise NotPossible(
                f"this member's store holds the data of another cluster ({status.cluster.hex()});"
                " re-imaging the appliance destroys it"
            )
        await self._destroy_discarded()

    async def _admitted(self, invitation: Invitation, text: str) -> str:
        """Ask to be let in and install the answer; returns the cluster's remark."""
        if self._clock() > invitation.expires + limits.CLOCK_TOLERANCE:
            late = int(self._clock()) - invitation.expires
            raise InvitationExpired(f"the invitation expired {late} s ago by this member's clock")
        domain_key = await self._derive(invitation.occasion.domain_derivation(self._vault.opened.domain))
        begun = self._vault.opened.joining
        if begun is None or begun.invitation != text:
            begun = await self._begin(invitation, text, domain_key)
        question = membership.AskToJoin(
            host=invitation.host,
            port=invitation.port,
            key=invitation.key,
            invitation=invitation.nonce,
            request=begun.request,
        )
        try:
            answer = await self._membership.ask(membership.JOIN, question, timeout=JOIN_SECONDS)
        except FINAL:
            self._vault.change(lambda state: replace(state, joining=None))
            raise
        bundle = join_protocol.open_reply(
            invitation,
            begun.request,
            answer.reply,
            seed=self._vault.opened.identity,
            nonce=begun.nonce,
            domain_key=domain_key,
        )
        self._vault.change(lambda state: create.install(state, bundle))
        return answer.warning

    async def _begin(self, invitation: Invitation, text: str, domain_key: bytes) -> Joining:
        """Begin a new attempt, under an id and a key that no cluster has seen."""
        prepare = membership.Prepare(member=secrets.token_bytes(_ID), renew=True)
        member = (await self._membership.ask(membership.PREPARE, prepare, timeout=STATUS_SECONDS)).member
        nonce = secrets.token_bytes(_NONCE)
        request = join_protocol.request(
            invitation.occasion,
            seed=self._vault.opened.identity,
            nonce=nonce,
            member=member,
            product=lnh_common.VERSION,
            domain_key=domain_key,
        )
        begun = Joining(invitation=text, member=member, nonce=nonce, request=request)
        self._vault.change(lambda state: replace(state, joining=begun))
        return begun

    async def _adopt(self, cluster: Cluster) -> None:
        """Have the store begin as a member, and serve."""
        begun = self._vault.opened.joining
        if begun is not None:
            adopt = store.Adopt(cluster=cluster.id, member=begun.member, members=begun.members)
            await self._store.ask(store.ADOPT, adopt, timeout=STORE_SECONDS)
            self._vault.change(create.joined)
            self._vault.change_appliance(lambda now: replace(now, initialised=True))
        self._desk.sign()
        self._desk.start_workers()

    async def _progress(self, _: Empty) -> console.JoinProgress:
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        view = await self._membership.ask(membership.STATUS, Empty(), timeout=STATUS_SECONDS)
        return console.JoinProgress(
            state=status.state, index=status.last_index, waiting_for=view.waiting_for, problem=status.problem
        )

    # --- letting others in

    async def invite(self) -> hsm.Invited:
        """Make a new invitation; raises NotActivated, NoCluster, MemberReadOnly."""
        cluster = self._member_of()
        await self._check_writable()
        question = membership.Prepare(member=cluster.member)
        this = (await self._membership.ask(membership.PREPARE, question, timeout=STATUS_SECONDS)).member
        now, nonce = int(self._clock()), secrets.token_bytes(_NONCE)
        state = self._vault.change(lambda before: invitations.issue(before, nonce, now))
        invitation = Invitation(
            join_protocol.INVITATION_FORMAT,
            nonce,
            cluster.id,
            cluster.label,
            now + limits.INVITATION_SECONDS,
            this.host,
            this.port + 1,
            this.key,
            join_protocol.Identity.of(state.identity),
        )
        return hsm.Invited(
            text=invitation.text(), expires=invitation.expires, identity=invitation.identity.fingerprint()
        )

    async def admit(self, request: hsm.Admit) -> hsm.Admitted:
        """Check another HSM's request and answer it.

        Raises what `invitations.check` does, DomainMismatch (and burns the invitation), UnsupportedVersion, NameTaken,
        LimitReached, ChannelInvalid, NotActivated, NoCluster, MemberReadOnly.
        """
        async with self._admitting:
            try:
                admitted = await self._admit(request)
            except LnhError as error:
                self._desk.refuse(hsm.ADMIT.name, request.invitation.hex()[:16], error)
                raise
            return admitted

    async def _admit(self, request: hsm.Admit) -> hsm.Admitted:
        cluster = self._member_of()
        state, nonce = self._vault.opened, request.invitation
        digest = hashlib.sha256(request.request).digest()
        invitations.check(state, nonce, digest, int(self._clock()))
        occasion = join_protocol.Occasion(nonce, join_protocol.Identity.of(state.identity))
        asker = join_protocol.open_request(occasion, request.request, state.identity)
        check_compatible(lnh_common.VERSION, asker.product)
        domain_key = await self._derive(occasion.domain_derivation(state.domain))
        try:
            asker.check_proof(occasion, domain_key)
        except DomainMismatch:
            self._vault.change(lambda before: invitations.burn(before, nonce))
            raise
        members = await self._check_writable()
        check_new(asker.member, members)
        await self._take_smks()  # one that is in use and not here could not be handed on
        self._desk.record(hsm.ADMIT.name, asker.member.name, "ok")
        check_takes_part(asker.product, await self._cluster_version(cluster))
        now = self._vault.change(lambda before: invitations.use(before, nonce, digest)).cluster
        assert now is not None, "one who leaves its cluster admits nobody"
        listed = tuple(each for each in members if each.id != asker.member.id)
        bundle = join_protocol.Bundle(
            cluster=cluster.id,
            label=cluster.label,
            identity=now.identity,
            smk=now.smk,
            lookup=now.lookup,
            channel=now.channel,
            members=(*listed, asker.member),
        )
        reply = join_protocol.reply(request.request, asker, bundle, seed=state.identity, domain_key=domain_key)
        return hsm.Admitted(reply=reply, member=asker.member)

    def _member_of(self) -> Cluster:
        cluster = self._vault.opened.cluster
        if cluster is None or cluster.phase is not Phase.CREATED:
            raise NoCluster("this member has no cluster")
        return cluster

    async def _cluster_version(self, cluster: Cluster) -> str:
        """Return the cluster's version; raises NotPossible while this member's store has nothing of the cluster yet."""
        item = await answers.fetch(self._store, cluster.records().key_of(ClusterRecord, CLUSTER_RECORD), STORE_SECONDS)
        if item is None:
            raise NotPossible("this member's store does not hold the cluster's records yet: it has just joined")
        return cluster.records_of(item).product

    async def _check_writable(self) -> tuple[MemberInfo, ...]:
        """Return the members; raises MemberReadOnly while nothing can be written through this one."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if status.state != "read-write":
            raise MemberReadOnly(f"this member is {status.state}: nobody can be let in through it now")
        return status.members

    # --- leaving

    async def depart(self, request: hsm.Depart) -> None:
        """Stop serving and wipe what this HSM holds of the cluster; begun when it returns, and finished soon after.

        An expelled member without a dismissal only stops serving: the peer that tells it may be lying.

        Raises NotActivated, because a sealed state cannot be wiped; PermissionDenied for any other departure without a
        dismissal.
        """
        cluster = self._vault.opened.cluster
        if cluster is None or cluster.id != request.cluster or cluster.phase is Phase.LEAVING:
            return
        smks = [smk.key for smk in cluster.smk]
        dismissed = removal_proof.is_dismissed(smks, cluster.id, cluster.member, request.proof)
        phase = Phase.LEAVING if dismissed else Phase.SUSPENDED
        if phase is Phase.SUSPENDED and request.departure is not hsm.Departure.EXPELLED:
            raise PermissionDenied("no HSM of this cluster has dismissed this member")
        if phase is cluster.phase:
            return
        self._desk.record(hsm.DEPART.name, cluster.label, f"{request.departure.value}, {phase.value}")
        self._vault.change(lambda state: create.departing(state, phase, request.departure, request.reason))
        self.go_on()

    def go_on(self) -> None:
        """Finish a departure that was begun, if there is one; also after a start."""
        cluster = self._vault.state.cluster if self._vault.state else None
        if cluster is None or (self._departing is not None and not self._departing.done()):
            return
        if cluster.phase is Phase.LEAVING:
            self._departing = asyncio.create_task(self._leave())
        elif cluster.phase is Phase.SUSPENDED:
            self._departing = asyncio.create_task(self._desk.stop_workers())

    async def finish(self) -> None:
        """Wait for a departure that is under way."""
        if self._departing is not None:
            await asyncio.gather(self._departing, return_exceptions=True)

    async def _leave(self) -> None:
        try:
            await self._desk.stop_workers()
            state = self._vault.change(create.left)
            self._vault.change_appliance(lambda now: replace(now, initialised=bool(state.users)))
            _log.info("cluster left", expelled=state.expelled)
            self._desk.sign()
            await self.tidy()
        except LnhError as error:
            _log.failure("leaving not finished, tried again", problem=str(error))

    async def tidy(self) -> None:
        """Erase what the store still holds of a cluster that was left; raises what the store answers.

        An expelled member keeps it, without any key, until an administrator has looked: it may hold entries no other
        has.
        """
        state = self._vault.state
        if state is not None and state.discarded and not state.expelled:
            await self._destroy_discarded()

    async def _discard_rest(self, request: console.AsSo) -> Empty:
        await self._desk.authorise(request)
        if self._vault.opened.cluster is None:
            self._vault.change(lambda state: replace(state, expelled=""))
            await self.tidy()
        else:
            self._vault.change(lambda state: create.departing(state, Phase.LEAVING, hsm.Departure.LEFT, ""))
            await self._leave()
        return Empty()

    async def _destroy_discarded(self) -> None:
        discarded = self._vault.opened.discarded
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if status.cluster == discarded:
            await self._store.ask(store.DESTROY, store.Destroy(cluster=discarded), timeout=STORE_SECONDS)
        self._vault.change(lambda state: replace(state, discarded=b""))


def check_new(member: MemberInfo, members: tuple[MemberInfo, ...]) -> None:
    """Raise ArgumentInvalid, NameTaken, LimitReached unless `member` may be added to `members`, or is there."""
    if not (text.is_name(member.name) and text.is_name(member.host)):
        raise ArgumentInvalid(f"a member's name and host are {text.NAME_WORDS}")
    if any(replace(each, group=member.group, door=member.door) == member for each in members):
        return
    for other in members:
        if other.name == member.name:
            raise NameTaken(
                f"the cluster has a member {member.name}; if an attempt to join left it there: lnh member delete"
            )
        if (other.host, other.port) == (member.host, member.port):
            raise NameTaken(f"member {other.name} has the address {member.host}:{member.port}")
    if len(members) >= limits.MEMBERS:
        raise LimitReached(f"{limits.MEMBERS} members, which is the limit of a cluster")
