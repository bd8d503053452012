"""Serves hello, login, renewal, logout, registration, and a holder's change of its own password."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import lnh_common
from lnh_common import limits
from lnh_common.errors import (
    Busy,
    ClientRevoked,
    ClusterRestored,
    CredentialChanged,
    KeyringUnknown,
    LimitReached,
    NameUnknown,
    PermissionDenied,
    SealBroken,
    SessionEnded,
    TokenExpired,
)
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_common.messages.session import (
    ChangePassword,
    Credential,
    LoggedIn,
    Login,
    Logout,
    Register,
    Registered,
    Role,
    Welcome,
)
from lnh_common.wire import channel
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.auth import credentials, permissions
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES, Holder, User
from lnh_services.hsm.auth.tokens import Grant, OpenSession, Token, seal_token
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    OPENING_RECORD,
    TABLES,
    ClientRecord,
    CredentialRecord,
    EndedRecord,
    KeyringRecord,
    LogoutRecord,
    OpeningRecord,
    PolicyRecord,
    Record,
    RekeyRecord,
    RoleRecord,
    UserRecord,
    record_id,
)
from lnh_services.hsm.worker import recording, second_person
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.passwords import derive, new_credential, verify
from lnh_services.hsm.worker.policies import check_exists, effective_policy, policy_id
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.roles import held_by, role_id
from lnh_services.hsm.worker.rollback_guard import Ahead


def hello(worker: WorkerCore, request: Request[Empty]) -> Steps[Welcome]:
    """Tell which cluster this is, and the key to speak to it by."""
    yield from ()
    secrets = worker.secrets().secrets
    seed = secrets.channel[-1]
    identity = Ed25519PrivateKey.from_private_bytes(secrets.identity)
    statement = channel.Statement(
        channel.FORMAT,
        secrets.cluster,
        secrets.label,
        seed.epoch,
        channel.channel_public_bytes(Purpose.CHANNEL.derive(seed.seed)),
        seed.end,
        secrets.member,
        secrets.member_key,
    )
    encoded, signature = statement.sign(identity)
    public = identity.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Welcome(statement=encoded, signature=signature, identity=public, product=lnh_common.VERSION)


def register(worker: WorkerCore, request: Request[Register]) -> Steps[Registered]:
    """Register a client machine, as an administrator."""
    message = request.message
    assert request.credential is not None, "registration is a credential operation"
    request.credential.check_signature(message.sign_key)
    administrator = message.administrator
    if administrator.role is not Role.USER:
        raise PermissionDenied("a client is registered by an appliance user with permission 'clients'")
    user, _ = yield from _verified_user(worker, request, administrator)
    held = yield from held_by(worker, user)
    permissions.check(request.operation.name, permissions.REGISTERS, b"", Holder(permissions=held))
    assert permissions.REGISTERS.permission is not None, "a user's permission decides"
    by = (User(user.name, held),)
    yield from second_person.demand(worker, request, by, permissions.REGISTERS.permission)
    if message.monitor and (yield from worker.record(UserRecord, record_id("user", message.monitor))) is None:
        raise NameUnknown(f"no appliance user {message.monitor!r}")
    client = request.new_id()
    record = ClientRecord(
        id=client,
        name=message.name,
        curve_key=message.curve_key,
        sign_key=message.sign_key,
        monitor=message.monitor,
        registered_at=int(worker.utc()),
        revoked=False,
    )
    records = yield from worker.started()
    yield from recording.act(request, "ok", administrator.name, "user")
    yield from worker.commit(request, [records.put(record, client, 0, unique=message.name)])
    return Registered(client=client)


def _verified_user(
    worker: WorkerCore, request: Request[Any], credential: Credential
) -> Steps[tuple[UserRecord, CredentialRecord]]:
    stored, _, _ = yield from verify(worker, request, credential)
    user = yield from worker.record(UserRecord, record_id("user", credential.name))
    if user is None:
        raise NameUnknown(f"no appliance user {credential.name!r}")
    return user, stored


def login(worker: WorkerCore, request: Request[Login]) -> Steps[LoggedIn]:
    """Open a session: of a registered client, with up to two credentials."""
    given = request.message.credentials
    if not given and request.client is None:
        raise PermissionDenied("a login without a credential is a registered client's only")
    keyrings = {credential.keyring for credential in given if credential.role.of_keyring}
    if len(keyrings) > 1 or (keyrings and len(given) > 1):
        raise PermissionDenied("a session holds one keyring role, and no other role beside it")
    grants: list[Grant] = []
    keyring_key = b""
    for credential in given:
        if credential.role.of_keyring:
            yield from visible_keyring(worker, request.client, credential.keyring)
        stored, _, derived = yield from verify(worker, request, credential)
        if credential.role.of_keyring:
            identity = worker.secrets()
            keyring_key = credentials.keyring_key(
                stored, derived, identity.smk_of(stored.generation), identity.secrets.cluster
            )
        grants.append(Grant(credential.role, credential.name, credential.keyring, stored.id))
        yield from recording.act(request, "ok", _name(request, credential), credential.role.value)
    now = int(worker.utc())
    instance = yield from worker.session_instance()
    assert request.credential is not None, "login is a credential operation"
    token = Token(
        secret=request.credential.secret,
        session=os.urandom(16),
        login_at=now,
        expires=now,
        client=request.client.id if request.client else b"",
        grants=tuple(grants),
        keyring_key=keyring_key,
        instance=instance,
    )
    return (yield from _issue(worker, token))


def _name(request: Request[Any], credential: Credential) -> str:
    client = f"@{request.client.name}" if request.client else ""
    return (credential.name or credential.role.value) + client


def visible_keyring(worker: WorkerCore, client: ClientRecord | None, keyring: bytes) -> Steps[KeyringRecord]:
    """Return the keyring, if this client may see it; raises KeyringUnknown, or PermissionDenied without a client."""
    if client is None:
        raise PermissionDenied("keyrings are used by registered clients only: LNHClientRegistration")
    record = yield from worker.record(KeyringRecord, keyring)
    if record is None or (record.assigned and keyring not in client.keyrings):
        raise KeyringUnknown(f"no keyring {keyring.hex()} that this client may see")
    return record


def _issue(worker: WorkerCore, token: Token) -> Steps[LoggedIn]:
    """Issue a token like this one with a new expiry, sealed in the newest channel epoch."""
    policy = yield from effective_policy(worker, token.grants[0].keyring if token.grants else b"")
    now = int(worker.utc())
    ends = token.login_at + policy.session_lifetime
    if now > ends + limits.CLOCK_TOLERANCE:
        raise TokenExpired(f"the login is more than {policy.session_lifetime} s old (policy session_lifetime)")
    expires = min(now + policy.token_lifetime, ends)
    secrets = worker.secrets().secrets
    seed = secrets.channel[-1]
    renewed = Token(
        token.secret,
        token.session,
        token.login_at,
        expires,
        token.client,
        token.grants,
        token.keyring_key,
        token.instance,
    )
    sealed = seal_token(renewed, secrets.cluster, seed.epoch, seed.seed)
    return LoggedIn(token=sealed, session=token.session, expires=expires, ends=ends)


def check_token(worker: WorkerCore, sealed: bytes, token: Token, ahead: Ahead) -> Steps[OpenSession]:
    """Check all that an opened token rests on.

    Args:
        ahead: what its request reads next, of which the core is asked at the same time.

    Raises SessionEnded, CredentialChanged, ClusterRestored, ClientRevoked, KeyringUnknown: the last four for good
    where what they rest on only grows.
    """
    version = (yield from worker.started()).version
    rests_on = _rests_on(token)
    of_keyring = next((grant.keyring for grant in token.grants if grant.role.of_keyring), b"")
    gone = partial(check_exists, worker, of_keyring) if of_keyring else None
    yield from worker.learn(rests_on, ahead, gone)
    if token.instance != (yield from worker.session_instance()):
        raise ClusterRestored("the cluster was restored, or opened by force, since this session was opened")
    if (yield from worker.record(LogoutRecord, token.session)) is not None:
        raise SessionEnded("this session was logged out")
    client = None
    if token.client:
        client = yield from worker.record(ClientRecord, token.client)
        if client is None:
            raise ClientRevoked("this client was revoked")
        if client.revoked:
            raise ClientRevoked("this client was revoked").for_good()
    # These before the credentials: a rekey changes all of them, so no key goes with a later state than its own.
    rekey, rekeyed = (yield from worker.versioned(RekeyRecord, of_keyring, explained=gone)) if of_keyring else (None, 0)
    _, keyring_version = (yield from worker.versioned(KeyringRecord, of_keyring)) if of_keyring else (None, 0)
    holder, keyring = Holder(client=client is not None), b""
    for grant in token.grants:
        holder = yield from _check_grant(worker, grant, token.login_at, client, holder, rests_on)
        keyring = grant.keyring or keyring
    if client is not None and client.monitor and not token.grants:
        holder = Holder(permissions=BUILTIN_ROLES["monitor"], client=True)
    policy = yield from effective_policy(worker, keyring)
    # A policy that was made stricter since also ends what was issued before it.
    token = msgspec.structs.replace(token, expires=min(token.expires, token.login_at + policy.session_lifetime))
    who = "+".join(grant.name or grant.role.value for grant in token.grants)
    return OpenSession(
        sealed,
        token,
        SessionKeys.derive(token.secret, sealed),
        holder,
        f"{who}@{client.name}" if client else who,
        _keyring_keys(token, worker.secrets().secrets.cluster, keyring, rekey, rekeyed) if token.keyring_key else None,
        frozenset({("cluster", CLUSTER_RECORD), *((TABLES[kind], record) for kind, record in rests_on)}),
        version,
        policy.read_only_max,
        keyring_version,
    )


def _keyring_keys(token: Token, cluster: bytes, keyring: bytes, rekey: RekeyRecord | None, rekeyed: int) -> KeyringKeys:
    keys = KeyringKeys.derive(token.keyring_key, cluster, keyring)
    try:
        return keys.with_before(token.keyring_key, rekey.before if rekey else b"", rekeyed)
    except SealBroken:
        raise Busy("the keyring was given another key while this session was looked at") from None


def _rests_on(token: Token) -> list[tuple[type[Record], bytes]]:
    """List the records that a token is checked against; when one of them changes, its session is checked anew."""
    rests_on: list[tuple[type[Record], bytes]] = [(OpeningRecord, OPENING_RECORD), (LogoutRecord, token.session)]
    if token.client:
        rests_on.append((ClientRecord, token.client))
    keyring = b""
    for grant in token.grants:
        rests_on.append((CredentialRecord, credentials.credential_id(grant.role, grant.name, grant.keyring)))
        if grant.role.of_keyring:
            keyring = grant.keyring
            rests_on += [(KeyringRecord, keyring), (RekeyRecord, keyring)]
        elif grant.role is not Role.PO:
            rests_on.append((UserRecord, record_id("user", grant.name)))
    return [*rests_on, (PolicyRecord, policy_id()), *([(PolicyRecord, policy_id(keyring))] if keyring else [])]


def _check_grant(
    worker: WorkerCore,
    grant: Grant,
    login_at: int,
    client: ClientRecord | None,
    holder: Holder,
    rests_on: list[tuple[type[Record], bytes]],
) -> Steps[Holder]:
    where = credentials.credential_id(grant.role, grant.name, grant.keyring)
    stored = yield from worker.record(CredentialRecord, where)
    if stored is None or stored.id != grant.credential:
        changed = CredentialChanged(
            "the password was changed, or the keyring given another key, since this session was opened"
            if grant.role.of_keyring
            else "the password was changed since this session was opened"
        )
        # One that was changed after the login is the later of the two, whoever says so.
        raise changed.for_good() if stored is not None and stored.changed_at > login_at else changed
    if grant.role.of_keyring:
        yield from visible_keyring(worker, client, grant.keyring)
        return Holder(role=grant.role, keyring=grant.keyring, client=holder.client)
    if grant.role is Role.PO:
        return replace(holder, po=True)
    user = yield from worker.record(UserRecord, record_id("user", grant.name))
    if user is None:
        raise CredentialChanged("the appliance user was deleted")
    if user.role not in BUILTIN_ROLES:
        rests_on.append((RoleRecord, role_id(user.role)))
    held = yield from held_by(worker, user)
    return replace(holder, permissions=held | holder.permissions, users=(*holder.users, User(user.name, held)))


def renew(worker: WorkerCore, request: Request[Empty]) -> Steps[LoggedIn]:
    """Renew a session: it gets a later expiry, up to policy `session_lifetime` after the login."""
    return (yield from _issue(worker, request.who.token))


def logout(worker: WorkerCore, request: Request[Logout]) -> Steps[Empty]:
    """End this session on every member; with `everywhere`, every session of its credentials.

    Raises LimitReached: sessions without a login cost a client nothing, so it ends so many a day.
    """
    session = request.who
    records = yield from worker.started()
    until = session.token.login_at + limits.SESSION_LIFETIME + limits.CLOCK_TOLERANCE
    record = LogoutRecord(session=session.token.session, until=until)
    changes: list[store.Change] = [records.put(record, session.token.session, 0)]
    if request.message.everywhere:
        changes += session.same_key(records)
        for grant in session.token.grants:
            where = credentials.credential_id(grant.role, grant.name, grant.keyring)
            stored, version = yield from worker.versioned(CredentialRecord, where, cached=False)
            if stored is not None:
                renewed = renamed(worker, stored, session.token.keyring_key, stored.changed_at)
                changes.append(records.put(renewed, where, version))
    if not session.token.grants:
        ended, most = EndedRecord(until=until), limits.SESSIONS_ENDED
        changes.append(records.put(ended, session.token.session, 0, scope=session.token.client, limit=most))
    try:
        yield from worker.commit(request, changes)
    except LimitReached:
        said = LimitReached(
            f"this client ended {limits.SESSIONS_ENDED} sessions without a login within a day, the most that are kept; "
            "this one ends with its token",
            {"limit": limits.SESSIONS_ENDED},
        )
        raise said.final() from None
    return Empty()


def renamed(worker: WorkerCore, stored: CredentialRecord, keyring_key: bytes, changed_at: int) -> CredentialRecord:
    """Make a credential of the same password under a new id."""
    identity = worker.secrets()
    smk = identity.smk_of(stored.generation)
    return credentials.new_record(
        credentials.kept_of(stored, smk, identity.secrets.cluster),
        role=stored.role,
        smk=worker.sealing_smk(),
        cluster=identity.secrets.cluster,
        now=changed_at,
        name=stored.name,
        keyring=stored.keyring,
        keyring_key=keyring_key,
        must_change=stored.must_change,
        born=stored.born,
    )


def change_password(worker: WorkerCore, request: Request[ChangePassword]) -> Steps[Empty]:
    """Change a holder's own password; the KRSO's first change makes the keyring's key."""
    if (yield from worker.acted_before(request)):
        return Empty()
    credential, new = request.message.credential, request.message.new
    credentials.check_password(new)
    if credential.role.of_keyring:
        yield from visible_keyring(worker, request.client, credential.keyring)
    stored, version, derived = yield from verify(worker, request, credential, may_be_first=True)
    identity = worker.secrets()
    cluster = identity.secrets.cluster
    keyring_key = credentials.keyring_key(stored, derived, identity.smk_of(stored.generation), cluster)
    if credential.role is Role.KRSO and stored.must_change and not keyring_key:
        keyring_key = os.urandom(credentials.KEYRING_KEY_BYTES)
    kept = yield from derive(new)
    record = new_credential(
        worker,
        kept,
        stored.role,
        name=stored.name,
        keyring=stored.keyring,
        keyring_key=keyring_key,
        born=stored.born,
    )
    records = yield from worker.started()
    yield from recording.act(request, "ok", _name(request, credential), credential.role.value)
    where = credentials.credential_id(stored.role, stored.name, stored.keyring)
    yield from worker.commit(request, [records.put(record, where, version)])
    return Empty()
