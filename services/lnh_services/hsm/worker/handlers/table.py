"""Lists the operations that a worker serves, one handler each.

An operation needs a row here, and a rule in `auth/permissions.py`.
"""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin, backup, objects, overview, session
from lnh_services.hsm.worker.core import Handler
from lnh_services.hsm.worker.handlers import backups, cluster, cryptography, groups, keyrings, members, session_objects
from lnh_services.hsm.worker.handlers import objects as on_objects
from lnh_services.hsm.worker.handlers import session as on_sessions

HANDLERS: Final[dict[str, Handler]] = {
    session.HELLO.name: on_sessions.hello,
    session.REGISTER.name: on_sessions.register,
    session.LOGIN.name: on_sessions.login,
    session.RENEW.name: on_sessions.renew,
    session.WAYS.name: cluster.ways,
    session.LOGOUT.name: on_sessions.logout,
    session.CHANGE_PASSWORD.name: on_sessions.change_password,
    admin.KEYRING_CREATE.name: keyrings.create,
    admin.KEYRING_LIST.name: keyrings.list_,
    admin.KEYRING_SHOW.name: keyrings.show,
    admin.KEYRING_DELETE.name: keyrings.delete,
    admin.KEYRING_POLICY.name: keyrings.policy,
    admin.ROLE_INIT.name: keyrings.init_role,
    admin.ROLE_SET.name: keyrings.set_role,
    admin.CLIENT_LIST.name: cluster.list_clients,
    admin.CLIENT_REVOKE.name: cluster.revoke_client,
    admin.CLIENT_ASSIGN.name: cluster.assign,
    admin.CLIENT_UNASSIGN.name: cluster.unassign,
    admin.USER_ADD.name: cluster.add_user,
    admin.USER_LIST.name: cluster.list_users,
    admin.USER_DELETE.name: cluster.delete_user,
    admin.CLUSTER_SHOW.name: cluster.show,
    admin.CLUSTER_POLICY.name: cluster.policy,
    admin.CLUSTER_LEAVE.name: members.leave,
    admin.CLUSTER_DELETE.name: members.delete_cluster,
    admin.MEMBER_INVITE.name: members.invite,
    admin.MEMBER_SET.name: members.set_,
    admin.MEMBER_PROMOTE.name: members.promote,
    admin.MEMBER_REMOVE.name: members.remove,
    admin.MEMBER_DELETE.name: members.delete,
    admin.MEMBER_DIVERGENT.name: members.divergent,
    admin.MEMBER_MOVE.name: groups.move,
    admin.GROUP_CREATE.name: groups.create,
    admin.GROUP_LIST.name: groups.list_,
    admin.GROUP_DELETE.name: groups.delete,
    overview.OVERVIEW.name: cluster.look,
    admin.STATUS.name: cluster.status,
    backup.NOW.name: backups.now,
    backup.LIST.name: backups.list_,
    backup.SHOW.name: backups.show,
    backup.VERIFY.name: backups.verify,
    backup.JOB.name: backups.job,
    backup.READ.name: backups.read,
    backup.SCHEDULE.name: backups.schedule,
    backup.RESTORE.name: backups.restore,
    backup.WRITE.name: backups.write,
    backup.DELETE.name: backups.delete,
    objects.GENERATE.name: on_objects.generate,
    objects.GENERATE_PAIR.name: on_objects.generate_pair,
    objects.GENERATE_MANY.name: on_objects.generate_many,
    objects.GENERATE_PAIRS.name: on_objects.generate_pairs,
    objects.GENERATE_IN_SESSION.name: session_objects.generate,
    objects.GENERATE_PAIR_IN_SESSION.name: session_objects.generate_pair,
    objects.FIND.name: on_objects.find,
    objects.SHOW.name: on_objects.show,
    objects.SET.name: on_objects.set_attributes,
    objects.DESTROY.name: on_objects.destroy,
    objects.SIGN.name: cryptography.use,
    objects.SIGN_MANY.name: cryptography.use,
    objects.VERIFY.name: cryptography.use,
    objects.ENCRYPT.name: cryptography.use,
    objects.DECRYPT.name: cryptography.use,
    objects.USES.name: cryptography.uses,
    objects.RANDOM.name: cryptography.random,
}
