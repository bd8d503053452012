"""Messages between the processes of one hsm service, over sockets that only they can open."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Message, operation
from lnh_common.messages.session import Id16, Key32
from lnh_common.messages.store import MemberInfo


class ChannelSeed(Confidential):
    """One epoch of the channel; it is offered until `end` (UTC seconds), and erased a session's life later."""

    epoch: int
    seed: Key32
    end: int


class SmkGeneration(Confidential):
    """One generation of the SMK, as the core gives it to a worker."""

    generation: int
    key: Key32


class AttachWorker(Message):
    """Introduce a worker to the core: its number, and the 16 random bytes that it drew at its start."""

    number: int
    worker: Id16


class WorkerSecrets(Confidential):
    """Answer with all that an hsm worker needs; it is never written anywhere.

    Args:
        member, member_key: this member's id and the CURVE key of its client port.
        identity: 32-byte Ed25519 seed of the cluster identity.
        channel: the epochs in use, newest last.
        smk: the generations that are held, newest last.
        lookup: the record key of the first generation; empty while no other was ever held.
    """

    cluster: Id16
    label: str
    member: Id16
    member_name: str
    member_key: Key32
    identity: Key32
    channel: tuple[ChannelSeed, ...]
    smk: tuple[SmkGeneration, ...]
    lookup: bytes = b""


class Derive(Confidential):
    """Ask the Argon2id process for one derivation (RFC 9106).

    Args:
        memory: in KiB.
        stranger: whether it is for a machine that is not registered.
        attempt: the attempt that it serves (`online_attempts.attempt`); asked for again meanwhile, it is done once.
    """

    password: bytes
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    memory: Annotated[int, msgspec.Meta(ge=8, le=1 << 21)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    stranger: bool = False
    attempt: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Derived(Confidential):
    """Answer with the 32 bytes that Argon2id made."""

    key: Key32


class AuditEntry(Message):
    """One line of the audit trail, before it is chained.

    Args:
        identity: who acted: a user's name, a client's name, `console`.
        role: the role it acted in.
        target: what the act was done to; a name or hex id, never a value.
        outcome: `ok`, or the name of the error.
        detail: what else a reader must know to understand the line; never a secret.
        peer: of a refusal before anything was done, the peer that was refused: refusals that repeat are counted
            together. It is not in the line; "" for everything else, which is always a line of its own.
    """

    identity: str
    role: str
    operation: str
    target: str
    outcome: str
    detail: dict[str, Any] = {}
    peer: str = ""


class Audit(Message):
    """Ask the core to write these entries to the audit trail."""

    entries: Annotated[tuple[AuditEntry, ...], msgspec.Meta(min_length=1, max_length=1024)]


class Audited(Message):
    """Answer that the entries are in the operating system's hands; `index` is the last one's."""

    index: int


class Mark(Message):
    """Name one stored item in the age that a worker used or wrote.

    Args:
        item: 16 bytes of a hash, which name the item.
        born: when an item was made that may be made anew under the same id, UTC milliseconds; -1 takes what is known.
    """

    item: Id16
    born: int
    version: int


class Seen(Message):
    """Tell the core the ages of items that a worker used, and ask for the highest that the HSM has seen."""

    marks: Annotated[tuple[Mark, ...], msgspec.Meta(min_length=1, max_length=limits.MARKS_AT_ONCE)]


class Damage(Message):
    """Tell the core that the store served an item that is not genuine, or older than was used; `cause` names it."""

    cause: str


class Highest(Message):
    """Answer for each mark, in order, with the highest `(born, version)` that this HSM has seen, the mark included."""

    highest: tuple[tuple[int, int], ...]


class Invited(Confidential):
    """Answer with a new invitation.

    Args:
        text: is handed to the operator of the new member.
        expires: UTC seconds.
        identity: fingerprint of the inviting HSM's public keys.
    """

    text: str
    expires: int
    identity: str


class Admit(Message):
    """Bring a request to join from another member's HSM, with the nonce of the invitation that it goes by."""

    invitation: Key32
    request: Annotated[bytes, msgspec.Meta(max_length=16384)]


class Admitted(Message):
    """Answer with the reply for the joining HSM, which alone can open it; it leaves once the cluster lists `member`."""

    reply: bytes
    member: MemberInfo


class Departure(str, enum.Enum):
    """The reason why a member is in its cluster no longer."""

    LEFT = "left"
    EXPELLED = "expelled"
    DELETED = "deleted"  # the cluster, by its last member


class Depart(Message):
    """Tell the core that this member is in the cluster no longer.

    The same message again, and one about another cluster, change nothing.

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


class AttemptStep(str, enum.Enum):
    """The step that an attempt at a password has reached."""

    CHECK = "check"  # whether there is any use in an Argon2id
    BEGIN = "begin"  # its guess is about to be compared
    WRONG = "wrong"
    RIGHT = "right"


class LoginAttempt(Message):
    """Tell the core one step of an attempt at a password, on a member that is read-only.

    Args:
        holder: the scope of the role holder's locks.
        client: 16 bytes; zeros for a client that is not registered.
        attempt: its name (`online_attempts.attempt`).
        guess: names the password that it tries (`online_attempts.guess`); zeros where that is not known yet.
        exists: whether the holder exists; False where that is not known yet.
    """

    holder: Annotated[bytes, msgspec.Meta(max_length=16)]
    client: Id16
    attempt: Id16
    step: AttemptStep
    guess: Id16 = bytes(16)
    exists: bool = False


class FailedAttempts(Message):
    """Count the failures of one (holder, client) that the cluster does not know of yet.

    Args:
        failures: how many, open guesses among them.
        attempts: names of the attempts that ended wrong.
        open: guesses that have not ended, each with the UTC second at which it began.
        exists: whether the holder existed.
    """

    holder: bytes
    client: Id16
    failures: Annotated[int, msgspec.Meta(ge=0)]
    attempts: tuple[bytes, ...] = ()
    open: tuple[tuple[bytes, int], ...] = ()
    exists: bool = False


class AllFailedAttempts(Message):
    """Answer with all failures that the cluster does not know of yet."""

    failed: tuple[FailedAttempts, ...] = msgspec.field(name="guessed")


ATTACH: Final = operation("core.attach", AttachWorker, WorkerSecrets)
AUDIT: Final = operation("core.audit", Audit, Audited, effect=Effect.WRITE)
NOTE_ATTEMPT: Final = operation("core.guess", LoginAttempt, Empty, effect=Effect.WRITE)
FAILED_ATTEMPTS: Final = operation("core.guessed", Empty, AllFailedAttempts)
FAILED_ATTEMPTS_TOLD: Final = operation("core.guesses.told", FailedAttempts, Empty, effect=Effect.WRITE)
SEEN: Final = operation("core.seen", Seen, Highest)
DAMAGED: Final = operation("core.damaged", Damage, Empty)
DERIVE: Final = operation("argon2.derive", Derive, Derived)
