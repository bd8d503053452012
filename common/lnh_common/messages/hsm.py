"""What the processes of one hsm service tell each other, over sockets only they can open."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Message, operation
from lnh_common.messages.session import Id16, Key32
from lnh_common.messages.store import MemberInfo


class ChannelSeed(Confidential):
    """One epoch of the channel; `end` in UTC seconds: it is not offered after, and erased a session later."""

    epoch: int
    seed: Key32
    end: int


class SmkGeneration(Confidential):
    generation: int
    key: Key32


class AttachWorker(Message):
    """A worker names itself: its number, and the 16 random bytes it drew at its start."""

    number: int
    worker: Id16


class WorkerSecrets(Confidential):
    """All an hsm worker needs; never written anywhere.

    Args:
        member, member_key: this member's id and the CURVE key of its client port.
        identity: 32-byte Ed25519 seed of the cluster identity.
        channel: the epochs in use, newest last.
        smk: the generations in use, newest last.
    """

    cluster: Id16
    label: str
    member: Id16
    member_name: str
    member_key: Key32
    identity: Key32
    channel: tuple[ChannelSeed, ...]
    smk: tuple[SmkGeneration, ...]


class Derive(Confidential):
    """One Argon2id (RFC 9106).

    Args:
        memory: in KiB.
        stranger: for a machine that is not registered.
        attempt: what it is for (`online_attempts.attempt`): asked for again meanwhile, it is done once.
    """

    password: bytes
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    memory: Annotated[int, msgspec.Meta(ge=8, le=1 << 21)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    stranger: bool = False
    attempt: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Derived(Confidential):
    key: Key32


class AuditEntry(Message):
    """One line of the audit trail, before it is chained.

    Args:
        identity: who: a user's name, a client's name, `console`.
        role: as which it acted.
        target: what it was done to; a name or hex id, never a value.
        outcome: `ok`, or the name of the error.
        detail: what else one must know to understand the line; never a secret.
        peer: of a refusal before anything was done, which peer was refused: those that repeat are counted together. It
            is not in the line; "" for everything else, which is always a line of its own.
    """

    identity: str
    role: str
    operation: str
    target: str
    outcome: str
    detail: dict[str, Any] = {}
    peer: str = ""


class Audit(Message):
    entries: Annotated[tuple[AuditEntry, ...], msgspec.Meta(min_length=1, max_length=1024)]


class Audited(Message):
    """The entries are in the operating system's hands; `index` is the last one's."""

    index: int


class Mark(Message):
    """One stored item as a worker used it, or wrote it.

    Args:
        item: names it: 16 bytes of a hash.
        born: of what is made anew under the same id, UTC milliseconds; -1 is as it is known.
    """

    item: Id16
    born: int
    version: int


class Seen(Message):
    marks: Annotated[tuple[Mark, ...], msgspec.Meta(min_length=1, max_length=limits.MARKS_AT_ONCE)]


class Damage(Message):
    """The store served what is not genuine, or older than was used; `cause` names it."""

    cause: str


class Highest(Message):
    """For each mark, in order: the highest `(born, version)` that this HSM has seen, the mark's included."""

    highest: tuple[tuple[int, int], ...]


class WorkerStatus(Message):
    number: int
    operations: int
    sessions: int
    keys: int
    refused: int


class Invited(Confidential):
    """A new invitation.

    Args:
        text: to be handed to whoever sets up the new member.
        expires: UTC seconds.
        identity: fingerprint of the inviting HSM's public keys.
    """

    text: str
    expires: int
    identity: str


class Admit(Message):
    """A request to join, as it came from another member's HSM, and the nonce of the invitation it goes by."""

    invitation: Key32
    request: Annotated[bytes, msgspec.Meta(max_length=16384)]


class Admitted(Message):
    """What the joining HSM is to be answered once the cluster lists `member`; nobody else can open `reply`."""

    reply: bytes
    member: MemberInfo


class Departure(str, enum.Enum):
    """Why a member is in its cluster no longer."""

    LEFT = "left"
    EXPELLED = "expelled"
    DELETED = "deleted"  # the cluster, by its last member


class Depart(Message):
    """Tells that this member is in the cluster no longer; asked again, or about another cluster, it changes nothing.

    Args:
        proof: the dismissal, by an HSM of the cluster; without it an expelled member stops serving and wipes nothing.
    """

    cluster: Id16
    departure: Departure
    reason: str = ""
    proof: bytes = b""


INVITE: Final = operation("core.invite", Empty, Invited, effect=Effect.WRITE)
ADMIT: Final = operation("hsm.admit", Admit, Admitted, effect=Effect.WRITE)
DEPART: Final = operation("hsm.depart", Depart, Empty, effect=Effect.WRITE)
# Answered where this HSM's workers serve, or are about to; else refused, with what stands in the way.
SERVES: Final = operation("hsm.serves", Empty, Empty)


class GuessStep(str, enum.Enum):
    """Where an attempt at a password is."""

    CHECK = "check"  # whether there is any use in an Argon2id
    BEGIN = "begin"  # its guess is about to be compared
    WRONG = "wrong"
    RIGHT = "right"


class Guess(Message):
    """One step of an attempt at a password on a member that is read-only.

    Args:
        holder: the scope of the role holder's locks.
        client: 16 bytes; zeros for one that is not registered.
        attempt: its name (`online_attempts.attempt`).
        guess: what it tries (`online_attempts.guess`); zeros where that is not known yet.
        exists: whether there is such a holder; False where that is not known yet.
    """

    holder: Annotated[bytes, msgspec.Meta(max_length=16)]
    client: Id16
    attempt: Id16
    step: GuessStep
    guess: Id16 = bytes(16)
    exists: bool = False


class Guessed(Message):
    """Failures of one (holder, client) that the cluster does not know of yet.

    Args:
        failures: how many, open guesses among them.
        attempts: names of those that ended wrong.
        open: guesses that have not ended, each with the UTC second at which it began.
        exists: whether there was such a holder.
    """

    holder: bytes
    client: Id16
    failures: Annotated[int, msgspec.Meta(ge=0)]
    attempts: tuple[bytes, ...] = ()
    open: tuple[tuple[bytes, int], ...] = ()
    exists: bool = False


class AllGuessed(Message):
    guessed: tuple[Guessed, ...]


ATTACH: Final = operation("core.attach", AttachWorker, WorkerSecrets)
AUDIT: Final = operation("core.audit", Audit, Audited, effect=Effect.WRITE)
GUESS: Final = operation("core.guess", Guess, Empty, effect=Effect.WRITE)
GUESSED: Final = operation("core.guessed", Empty, AllGuessed)
GUESSES_TOLD: Final = operation("core.guesses.told", Guessed, Empty, effect=Effect.WRITE)
SEEN: Final = operation("core.seen", Seen, Highest)
DAMAGED: Final = operation("core.damaged", Damage, Empty)
DERIVE: Final = operation("argon2.derive", Derive, Derived)
WORKER_STATUS: Final = operation("worker.status", Empty, WorkerStatus)
