"""Lists the operations that a worker serves: one row an operation, with its handler, who may, and what it changes.

Effect and seal are columns of the operation itself, beside its message.
"""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin, audit, backup, objects, overview, session, smk
from lnh_common.messages.admin import Permission
from lnh_common.messages.session import Role
from lnh_services.hsm.auth.permissions import Rule
from lnh_services.hsm.worker import second_person
from lnh_services.hsm.worker.core import Second, Served, serves
from lnh_services.hsm.worker.handlers import (
    approvals,
    audits,
    backups,
    cluster,
    cryptography,
    groups,
    keyrings,
    making,
    members,
    rekeying,
    session_objects,
    smks,
    upgrade,
    users,
)
from lnh_services.hsm.worker.handlers import objects as on_objects
from lnh_services.hsm.worker.handlers import session as on_sessions

_HOLDERS: Final = frozenset({Role.KRSO, Role.KRCO})
_KRSO: Final = frozenset({Role.KRSO})
_USES: Final = Rule(keyring=_HOLDERS)
# What is no part of what a second person approves.
_PASSWORD: Final = frozenset({"password"})
_PASSPHRASE: Final = frozenset({"passphrase"})
_MADE_ANEW: Final = frozenset({"administrator", "curve_key", "sign_key"})  # a client's keys, with each try
_CHANGES: Final = Rule(keyring=_HOLDERS, audited=True)

_ROWS: Final = (
    serves(session.HELLO, on_sessions.hello),
    serves(session.REGISTER, on_sessions.register, commits=True, second=Second(without=_MADE_ANEW)),
    serves(session.LOGIN, on_sessions.login),
    serves(session.RENEW, on_sessions.renew, Rule(session=True)),
    # Addresses and keys of the members' ports: what failing over needs.
    serves(session.ENDPOINTS, cluster.endpoints, Rule(client=True)),
    serves(session.LOGOUT, on_sessions.logout, Rule(session=True, audited=True), commits=True),
    serves(session.CHANGE_PASSWORD, on_sessions.change_password, commits=True),
    serves(admin.KEYRING_CREATE, keyrings.create, Rule(Permission.KEYRINGS, po=True, audited=True), commits=True),
    serves(admin.KEYRING_LIST, keyrings.list_, Rule(Permission.VIEW, client=True, keyring=_HOLDERS)),
    serves(admin.KEYRING_SHOW, keyrings.show, Rule(Permission.VIEW, keyring=_HOLDERS)),
    serves(
        admin.KEYRING_DELETE,
        keyrings.delete,
        Rule(Permission.KEYRINGS, po=True, audited=True),
        commits=True,
        second=Second(),
    ),
    serves(admin.KEYRING_POLICY, keyrings.policy, Rule(keyring=_HOLDERS, changes=_KRSO, audited=True), commits=True),
    serves(admin.KEYRING_REKEY, rekeying.rekey, Rule(keyring=_KRSO, audited=True), commits=True),
    serves(admin.KEYRING_RESEAL, rekeying.reseal, Rule(keyring=_KRSO, audited=True), commits=True),
    serves(admin.KEYRING_REKEY_STATE, rekeying.state, _USES),
    serves(admin.ROLE_INIT, keyrings.init_role, Rule(Permission.KEYRINGS, po=True, audited=True), commits=True),
    serves(admin.ROLE_SET, keyrings.set_role, Rule(keyring=_KRSO, audited=True), commits=True),
    serves(admin.ROLE_LOCKS, keyrings.locks, Rule(Permission.VIEW)),
    serves(admin.CLIENT_LIST, cluster.list_clients, Rule(Permission.CLIENTS)),
    serves(
        admin.CLIENT_REVOKE,
        cluster.revoke_client,
        Rule(Permission.CLIENTS, audited=True),
        commits=True,
        second=Second(),
    ),
    serves(admin.CLIENT_ASSIGN, cluster.assign, Rule(Permission.CLIENTS, audited=True), commits=True),
    serves(admin.CLIENT_UNASSIGN, cluster.unassign, Rule(Permission.CLIENTS, audited=True), commits=True),
    serves(
        admin.USER_ADD,
        users.add_user,
        Rule(Permission.USERS, audited=True),
        commits=True,
        second=Second(without=_PASSWORD, also=second_person.role_allows, guards=second_person.adds_party),
    ),
    serves(admin.USER_LIST, users.list_users, Rule(Permission.USERS)),
    serves(admin.USER_DELETE, users.delete_user, Rule(Permission.USERS, audited=True), commits=True, second=Second()),
    serves(
        admin.USER_RESET,
        users.reset_user,
        Rule(Permission.USERS, audited=True),
        commits=True,
        second=Second(without=_PASSWORD, guards=second_person.resets_party),
    ),
    serves(admin.USER_UNLOCK, users.unlock, Rule(Permission.USERS, audited=True)),
    serves(
        admin.USER_ROLE_CREATE,
        users.create_role,
        Rule(Permission.USERS, audited=True),
        commits=True,
        second=Second(guards=second_person.makes_parties),
    ),
    serves(admin.USER_ROLE_LIST, users.list_roles, Rule(Permission.USERS)),
    serves(admin.USER_ROLE_DELETE, users.delete_role, Rule(Permission.USERS, audited=True), commits=True),
    serves(admin.CLUSTER_SHOW, cluster.show, Rule(Permission.VIEW)),
    serves(
        admin.CLUSTER_POLICY,
        cluster.policy,
        Rule(Permission.CLUSTER, po=True, audited=True),
        commits=True,
        second=Second(acts=lambda asked: bool(asked.changes), guards=second_person.changes_itself),
    ),
    serves(admin.CLUSTER_VERSION, upgrade.version, Rule(Permission.VIEW)),
    serves(admin.CLUSTER_UPGRADE, upgrade.upgrade, Rule(Permission.CLUSTER, po=True, audited=True), commits=True),
    serves(admin.CLUSTER_LEAVE, members.leave, Rule(Permission.CLUSTER, po=True, audited=True), second=Second()),
    serves(
        admin.CLUSTER_DELETE, members.delete_cluster, Rule(Permission.CLUSTER, po=True, audited=True), second=Second()
    ),
    # The invitation is the cluster's approval of the join, so it needs what a join needs.
    serves(admin.MEMBER_INVITE, members.invite, Rule(Permission.MEMBERS, po=True, audited=True), second=Second()),
    serves(admin.MEMBER_SET, members.set_, Rule(Permission.MEMBERS, audited=True)),
    serves(admin.MEMBER_PROMOTE, members.promote, Rule(Permission.MEMBERS, audited=True)),
    serves(admin.MEMBER_REMOVE, members.remove, Rule(Permission.MEMBERS, audited=True), second=Second()),
    serves(admin.MEMBER_DELETE, members.delete, Rule(Permission.MEMBERS, audited=True), second=Second()),
    serves(admin.MEMBER_DIVERGENT, members.divergent, Rule(Permission.MEMBERS, audited=True)),
    serves(admin.MEMBER_MOVE, groups.move, Rule(Permission.GROUPS, audited=True)),
    serves(admin.GROUP_CREATE, groups.create, Rule(Permission.GROUPS, audited=True)),
    serves(admin.GROUP_LIST, groups.list_, Rule(Permission.VIEW)),
    serves(admin.GROUP_DELETE, groups.delete, Rule(Permission.GROUPS, audited=True)),
    serves(admin.APPROVAL_LIST, approvals.list_, Rule(Permission.APPROVE)),
    serves(admin.APPROVAL_APPROVE, approvals.approve, Rule(Permission.APPROVE, audited=True), commits=True),
    serves(admin.APPROVAL_DENY, approvals.deny, Rule(Permission.APPROVE, audited=True), commits=True),
    serves(overview.OVERVIEW, cluster.look, Rule(Permission.VIEW)),
    serves(admin.STATUS, cluster.status, Rule(Permission.VIEW)),
    serves(audit.AUDIT_EXPORT, audits.export, Rule(Permission.AUDIT_EXPORT, audited=True)),
    serves(backup.NOW, backups.now, Rule(Permission.BACKUP, audited=True)),
    serves(backup.LIST, backups.list_, Rule(Permission.BACKUP)),
    serves(backup.SHOW, backups.show, Rule(Permission.BACKUP)),
    serves(backup.VERIFY, backups.verify, Rule(Permission.BACKUP, audited=True)),
    serves(backup.JOB, backups.job, Rule(Permission.BACKUP)),
    serves(backup.READ, backups.read, Rule(Permission.BACKUP)),
    serves(backup.SCHEDULE, backups.schedule, Rule(Permission.BACKUP, audited=True), commits=True),
    serves(
        backup.RESTORE,
        backups.restore,
        Rule(Permission.CLUSTER, po=True, audited=True),
        # An archive of before the policy has another one, and other users.
        second=Second(
            acts=lambda asked: not asked.check, also=second_person.archive_named, guards=second_person.always
        ),
    ),
    serves(backup.WRITE, backups.write, Rule(Permission.CLUSTER, po=True)),
    serves(backup.DELETE, backups.delete, Rule(Permission.BACKUP_DELETE, audited=True), second=Second()),
    serves(smk.SMK_SHOW, smks.show, Rule(Permission.VIEW)),
    serves(
        smk.SMK_BACKUP, smks.backup, Rule(Permission.CLUSTER, po=True, audited=True), second=Second(without=_PASSPHRASE)
    ),
    serves(smk.SMK_ROLLOVER, smks.roll_over, Rule(Permission.CLUSTER, po=True, audited=True), second=Second()),
    serves(smk.SMK_RETIRE, smks.retire, Rule(Permission.CLUSTER, po=True, audited=True), second=Second()),
    serves(objects.GENERATE, on_objects.generate, _CHANGES, commits=True),
    serves(objects.GENERATE_PAIR, on_objects.generate_pair, _CHANGES, commits=True),
    serves(objects.GENERATE_MANY, on_objects.generate_many, _CHANGES, commits=True),
    serves(objects.GENERATE_PAIRS, on_objects.generate_pairs, _CHANGES, commits=True),
    serves(objects.GENERATE_IN_SESSION, session_objects.generate, _CHANGES),
    serves(objects.GENERATE_PAIR_IN_SESSION, session_objects.generate_pair, _CHANGES),
    serves(objects.CREATE, making.create, _CHANGES, commits=True),
    serves(objects.CREATE_IN_SESSION, making.create, _CHANGES),
    serves(objects.COPY, making.copy, _CHANGES, commits=True),
    serves(objects.VALUE, making.value, _CHANGES),
    serves(objects.WRAP, making.wrap, _CHANGES),
    serves(objects.WRAP_MANY, making.wrap_many, _USES),
    serves(objects.UNWRAP, making.unwrap, _CHANGES, commits=True),
    serves(objects.UNWRAP_IN_SESSION, making.unwrap, _CHANGES),
    serves(objects.DERIVE, making.derive, _CHANGES, commits=True),
    serves(objects.DERIVE_IN_SESSION, making.derive, _CHANGES),
    serves(objects.ENCAPSULATE, making.encapsulate, _CHANGES, commits=True),
    serves(objects.ENCAPSULATE_IN_SESSION, making.encapsulate_in_session, _CHANGES),
    serves(objects.DECAPSULATE, making.decapsulate, _CHANGES, commits=True),
    serves(objects.DECAPSULATE_IN_SESSION, making.decapsulate, _CHANGES),
    serves(objects.FIND, on_objects.find, _USES),
    serves(objects.SHOW, on_objects.show, _USES),
    serves(objects.SET, on_objects.set_attributes, _CHANGES, commits=True),
    serves(objects.DESTROY, on_objects.destroy, _CHANGES, commits=True),
    serves(objects.SIGN, cryptography.use, _USES),
    serves(objects.SIGN_MANY, cryptography.use, _USES),
    serves(objects.VERIFY, cryptography.use, _USES),
    serves(objects.VERIFY_MANY, cryptography.use, _USES),
    serves(objects.ENCRYPT, cryptography.use, _USES),
    serves(objects.ENCRYPT_MANY, cryptography.use, _USES),
    serves(objects.DECRYPT, cryptography.use, _USES),
    serves(objects.DECRYPT_MANY, cryptography.use, _USES),
    serves(objects.STREAM, cryptography.stream, _USES),
    serves(objects.USES, cryptography.uses, _USES),
    serves(objects.RANDOM, cryptography.random, _USES),
)
SERVED: Final[dict[str, Served]] = {row.operation.name: second_person.held(row) for row in _ROWS}
