"""`lnh user`: appliance users, the same on every member."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import AdminOptions, PoOptions

app = noun("user", "Appliance users, the same on every member.")
roles = noun("role", "Appliance roles: what their users may do.")
app.add_typer(roles)

Name = Annotated[str, typer.Argument(help="The user.", callback=field("admin.UserRef", "name"))]
RoleName = Annotated[str, typer.Argument(help="The role.", callback=field("admin.RoleRef", "name"))]
NewPasswordFile = Annotated[Path | None, typer.Option(help="File with the new password.", callback=files.readable)]
Po = Annotated[bool, typer.Option("--po", help="With the PO's credential too.")]


@verb(app, "add", AdminOptions)
def add(
    options: AdminOptions,
    name: Annotated[str, typer.Argument(help="The user.", callback=field("admin.AddUser", "name"))],
    role: Annotated[
        str,
        typer.Option(
            "--role", help="admin, operator, monitor or a custom role.", callback=field("admin.AddUser", "role")
        ),
    ],
    new_password_file: NewPasswordFile = None,
) -> None:
    """Add a user."""
    from lnh_common.errors import NameTaken

    with options.administration() as session:
        if any(user.name == name for user in session.users()):
            raise NameTaken(f"there is a user {name!r}")
        session.role(role)  # before anything is asked for
        password = terminal.read_secret("NEW", new_password_file, what=f"password of the new user {name}", new=True)
        session.add_user(name, role, password)
    options.say(f"added {name} as {role}", name=name, role=role)


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the users."""
    with options.administration() as session:
        users = session.users()
    options.rows([{**terminal.fields(user), "locked": user.locked} for user in users], "name", "role", "locked")


@verb(app, "delete", AdminOptions)
def delete(options: AdminOptions, name: Name, yes: Yes = False) -> None:
    """Delete a user and end its sessions."""
    terminal.confirm(f"Delete user {name!r}?", yes=yes)
    with options.administration() as session:
        session.delete_user(name)
    options.say(f"deleted {name}", name=name)


@verb(app, "reset", AdminOptions)
def reset(options: AdminOptions, name: Name, new_password_file: NewPasswordFile = None) -> None:
    """Give another user a new password, to be changed by that user at its first use; its sessions end."""
    from lnh_common.errors import NameUnknown

    with options.administration() as session:
        if all(user.name != name for user in session.users(current=True)):
            raise NameUnknown(f"no appliance user {name!r}", {"advice": "lnh user list shows them"})
        password = terminal.read_secret("NEW", new_password_file, what=f"new password of {name}", new=True)
        session.reset_user(name, password)
    options.say(f"{name} has a new password, to be changed first: lnh user password -u {name}", name=name)


@verb(app, "unlock", AdminOptions)
def unlock(
    options: AdminOptions,
    name: Annotated[str | None, typer.Argument(help="The user.", callback=field("admin.UserRef", "name"))] = None,
    po: Annotated[bool, typer.Option("--po", help="The cluster's PO instead.")] = False,
) -> None:
    """Forget the failed logins of a user, or of the PO, that stays locked by policy lock_after."""
    if (name is None) is not po:
        terminal.refuse("one of them is unlocked at a time", "lnh user unlock NAME, or --po", terminal.USAGE)
    with options.administration() as session:
        if name is None:
            session.unlock_po()
        else:
            session.unlock_user(name)
    who = name or "the PO"
    options.say(f"{who} may log in again", name=name or "", role="po" if po else "user")


@verb(app, "password", AdminOptions)
def password(options: AdminOptions, new_password_file: NewPasswordFile = None) -> None:
    """Change one's own password, which ends one's other sessions."""
    from lnh import admin
    from lnh_cli.support import saved

    with options.connection() as connection:
        old = options.password()
        new = terminal.read_secret("NEW", new_password_file, what="new password", new=True)
        admin.change_password(connection, options.user, old, new, timeout=options.timeout)
        for po in (False, True):
            saved.forget(connection, saved.user_name(options.user, po=po))
    options.say(f"{options.user} has a new password", user=options.user)


@verb(app, "login", PoOptions)
def login(options: PoOptions, po: Po = False) -> None:
    """Log in, and keep the session for the commands that follow."""
    from lnh import admin
    from lnh_cli.support import saved

    with options.connection() as connection:
        own = options.password()
        po_password = options.po_password() if po else ""
        session = admin.login(connection, options.user, own, po_password=po_password, timeout=options.timeout)
        saved.save(session, saved.user_name(options.user, po=po))
        _, logged_in = session.saved()
    options.say(f"logged in as {options.user}", user=options.user, expires=logged_in.expires, ends=logged_in.ends)


@verb(app, "logout", AdminOptions)
def logout(
    options: AdminOptions,
    everywhere: Annotated[bool, typer.Option("--all", help="End every session of this user, anywhere.")] = False,
) -> None:
    """End the kept sessions."""
    from lnh import admin
    from lnh_cli.support import saved

    ended = 0
    with options.connection() as connection:
        for po in (False, True):
            name = saved.user_name(options.user, po=po)
            with saved.kept(connection, name, admin.Administration, options.timeout) as session:
                if session is None:
                    continue
                try:
                    session.logout(everywhere=everywhere)
                finally:
                    saved.forget(connection, name)
                ended += 1
        if everywhere and not ended:
            with admin.login(connection, options.user, options.password(), timeout=options.timeout) as session:
                session.logout(everywhere=True)
    said = f"logged out {options.user}" if ended or everywhere else "was not logged in"
    options.say(said, user=options.user, ended=ended)


def _known(permissions: list[str]) -> list[str]:
    """Refuse a permission that there is not, before anything is asked for."""
    from lnh_common.messages.admin import Permission

    known = [each.value for each in Permission]
    for each in permissions:
        if each not in known:
            terminal.refuse(f"no permission {each!r}", ", ".join(known), terminal.USAGE)
    return permissions


@verb(roles, "create", AdminOptions)
def create_role(
    options: AdminOptions,
    name: Annotated[str, typer.Argument(help="The role.", callback=field("admin.CreateRole", "name"))],
    permission: Annotated[
        list[str], typer.Option("--permission", "-p", help="What its users may do; several times.", callback=_known)
    ],
) -> None:
    """Make a custom role of permissions; `lnh user role show admin` shows all there are."""
    from lnh_common.messages.admin import Permission

    with options.administration() as session:
        session.create_role(name, map(Permission, permission))
    options.say(f"created role {name}", name=name, permissions=permission)


@verb(roles, "list", AdminOptions)
def list_roles(options: AdminOptions) -> None:
    """List the roles, built-in and custom."""
    with options.administration() as session:
        found = session.roles()
    options.rows(map(terminal.fields, found), "name", "custom", "permissions")


@verb(roles, "show", AdminOptions)
def show_role(options: AdminOptions, name: RoleName) -> None:
    """Show one role."""
    with options.administration() as session:
        view = session.role(name)
    options.record(terminal.fields(view))


@verb(roles, "delete", AdminOptions)
def delete_role(options: AdminOptions, name: RoleName, yes: Yes = False) -> None:
    """Delete a custom role that no user has."""
    terminal.confirm(f"Delete role {name!r}?", yes=yes)
    with options.administration() as session:
        session.delete_role(name)
    options.say(f"deleted role {name}", name=name)
