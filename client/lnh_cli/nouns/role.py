"""`lnh role`: the KRSO and KRCO of a keyring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import noun, verb
from lnh_cli.support.locks import role_locks, until
from lnh_cli.support.options import AdminOptions, KeyringOptions, PoOptions, parse_role

app = noun("role", "The KRSO and KRCO of a keyring.")

NewPasswordFile = Annotated[Path | None, typer.Option(help="File with the new password.", callback=files.readable)]


@verb(app, "init", PoOptions)
def init(
    options: PoOptions,
    keyring: Annotated[str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.")],
    role: Annotated[str, typer.Option("--role", help="krso (by an admin and the PO) or krco (by the KRSO).")] = "krso",
    new_password_file: NewPasswordFile = None,
    krso_password_file: Annotated[
        Path | None, typer.Option(help="File with the KRSO's password.", callback=files.readable)
    ] = None,
) -> None:
    """Set a role's first credential.

    The KRSO's is set by an admin and the PO, and good for nothing but being changed (`lnh role password`).
    The KRCO's is set by the KRSO.
    """
    from lnh_common.messages.session import Role

    what = f"new {role} password of {keyring}"
    if parse_role(role) is Role.KRSO:
        with options.administration() as session:
            session.keyring(keyring)  # before anything is asked for
            password = terminal.read_secret("NEW", new_password_file, what=what, new=True)
            session.init_krso(keyring, password)
        options.say(
            f"the KRSO of {keyring} must now change its password: lnh role password --role krso",
            keyring=keyring,
            role="krso",
        )
        return
    _set_krco(_as_krso(options, keyring, krso_password_file), new_password_file)


@verb(app, "reset", KeyringOptions)
def reset(options: KeyringOptions, new_password_file: NewPasswordFile = None) -> None:
    """Give the KRCO a new password, as the KRSO."""
    options.role = "krso"
    _set_krco(options, new_password_file)


@verb(app, "unlock", AdminOptions)
def unlock(
    options: AdminOptions,
    keyring: Annotated[str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.")],
    role: Annotated[str, typer.Option("--role", help="krco or krso.")] = "krco",
) -> None:
    """Forget the failed logins of a role that stays locked by policy lock_after, as an appliance user."""
    which = parse_role(role)
    with options.administration() as session:
        session.unlock_role(keyring, which)
    options.say(f"the {which.name} of {keyring} may log in again", keyring=keyring, role=which.value)


def _as_krso(options: AdminOptions, keyring: str, password_file: Path | None) -> KeyringOptions:
    return KeyringOptions(
        json=options.json,
        debug=options.debug,
        cluster=options.cluster,
        member=options.member,
        fingerprint=options.fingerprint,
        timeout=options.timeout,
        keyring=keyring,
        role="krso",
        password_file=password_file,
    )


def _set_krco(options: KeyringOptions, new_password_file: Path | None) -> None:
    with options.session() as session:
        what = f"new krco password of {options.keyring}"
        session.set_krco(terminal.read_secret("NEW", new_password_file, what=what, new=True))
    options.say(f"the KRCO of {options.keyring} has a new password", keyring=options.keyring, role="krco")


@verb(app, "password", KeyringOptions)
def password(options: KeyringOptions, new_password_file: NewPasswordFile = None) -> None:
    """Change a role's own password; the KRSO's first change makes the keyring's key."""
    from lnh_cli.support import saved

    role = options.keyring_role()
    with options.registered() as cluster:
        keyring = cluster.keyring(options.keyring)
        old = options.password()
        what = f"new {role.value} password of {options.keyring}"
        keyring.change_password(role, old, terminal.read_secret("NEW", new_password_file, what=what, new=True))
        saved.forget(cluster.connection, saved.role_name(options.keyring, role))
    options.say(f"the {role.name} of {options.keyring} has a new password", keyring=options.keyring, role=role.value)


@verb(app, "login", KeyringOptions)
def login(options: KeyringOptions) -> None:
    """Log in, and keep the session for the commands that follow."""
    from lnh_cli.support import saved

    role = options.keyring_role()
    with options.registered() as cluster:
        session = cluster.keyring(options.keyring).login(role, options.password())
        saved.save(session, saved.role_name(options.keyring, role))
        _, logged_in = session.saved()
    options.say(
        f"logged in as {role.name} of {options.keyring}",
        keyring=options.keyring,
        role=role.value,
        expires=logged_in.expires,
        ends=logged_in.ends,
    )


@verb(app, "logout", KeyringOptions)
def logout(
    options: KeyringOptions,
    everywhere: Annotated[bool, typer.Option("--all", help="End every session of this role, anywhere.")] = False,
) -> None:
    """End the kept session."""
    from lnh.keyrings import KeyringSession
    from lnh_cli.support import saved

    role = options.keyring_role()
    name = saved.role_name(options.keyring, role)
    ended = 0
    with options.registered() as cluster:
        with saved.kept(cluster.connection, name, KeyringSession, options.timeout) as session:
            if session is not None:
                try:
                    session.logout(everywhere=everywhere)
                finally:
                    saved.forget(cluster.connection, name)
                ended = 1
        if everywhere and not ended:
            with cluster.keyring(options.keyring).login(role, options.password()) as session:
                session.logout(everywhere=True)
    said = f"logged out {role.name}" if ended or everywhere else "was not logged in"
    options.say(said, keyring=options.keyring, role=role.value, ended=ended)


@verb(app, "list", AdminOptions)
def list_(
    options: AdminOptions,
    keyring: Annotated[str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.")],
) -> None:
    """List a keyring's roles, whether they have a credential, and who may not log in as one for now."""
    with options.administration() as session:
        held = session.show_keyring(keyring).roles
        locks = role_locks(session, keyring)
    rows = []
    for role in ("krso", "krco"):
        marks = [mark for mark in held if mark.startswith(role)]
        state = "not set" if not marks else "set" if role in marks else "must change"
        locked = [f"{each.client or 'everybody'} until {until(each)}" for each in locks if each.role.value == role]
        rows.append({"role": role, "state": state, "locked": locked})
    options.rows(rows, "role", "state", "locked")
