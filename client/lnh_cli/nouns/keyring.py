"""`lnh keyring`: keyrings of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import settings, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.locks import role_locks, until
from lnh_cli.support.options import AdminOptions, KeyringOptions, PoOptions

if TYPE_CHECKING:
    from lnh_common.messages.admin import KeyringView

app = noun("keyring", "Keyrings of a cluster.")

_COLUMNS = ("label", "id")  # all that a list asks for; the rest of a view is what `show` asks for

Label = Annotated[str, typer.Argument(help="The keyring.", callback=field("admin.ListKeyrings", "label"))]


def _named(view: KeyringView) -> dict[str, Any]:
    return {name: terminal.plain(getattr(view, name)) for name in _COLUMNS}


@verb(app, "create", PoOptions)
def create(
    options: PoOptions,
    label: Annotated[str, typer.Argument(help="The keyring.", callback=field("admin.CreateKeyrings", "label"))],
    total: Annotated[int, typer.Option(help="How many, 1 to 100: label and running number.")] = 1,
    index: Annotated[int, typer.Option(min=0, help="The first running number.")] = 1,
) -> None:
    """Create keyrings, as an admin and the PO."""
    from lnh.admin import check_total

    check_total(label, total, index)
    with options.administration() as session:
        created = session.create_keyrings(label, total, index)
    options.rows(map(_named, created), *_COLUMNS)


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the keyrings this client may see."""
    with options.viewing() as session:
        views = list(session.keyrings())
    options.rows(map(_named, views), *_COLUMNS)


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, label: Label) -> None:
    """Show a keyring: roles, objects, policy, assigned clients, and who may not log in for now."""
    with options.administration() as session:
        view = session.show_keyring(label)
        locks = role_locks(session, label)
    locked = [{"role": each.role.value, "client": each.client, "until": until(each)} for each in locks]
    options.record({**terminal.fields(view), "locked": locked})


@verb(app, "delete", PoOptions)
def delete(options: PoOptions, label: Label, yes: Yes = False) -> None:
    """Delete a keyring and every object in it, as an admin and the PO."""
    terminal.confirm(f"Delete keyring {label!r} and every object in it?", yes=yes)
    with options.administration() as session:
        session.delete_keyring(label)
    options.say(f"deleted keyring {label}", label=label)


@verb(app, "policy", KeyringOptions)
def policy(
    options: KeyringOptions,
    changes: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Settings to change.")] = None,
) -> None:
    """Show a keyring's policy, as either of its roles, or change it as its KRSO."""
    parsed = settings.parsed(changes or [])
    if changes:
        options.role = "krso"
    with options.session() as session:
        options.record(session.policy(**parsed))


@verb(app, "rekey", KeyringOptions)
def rekey(options: KeyringOptions) -> None:
    """Give a keyring another key, as its KRSO, and seal everything in it anew; all its sessions end.

    What was interrupted goes on when it is asked for again. The keys are used meanwhile, after a new login.
    """
    from lnh_cli.support import saved
    from lnh_cli.support.progress import progress
    from lnh_common.messages.session import Role

    options.role = Role.KRSO.value
    with options.registered() as cluster:
        keyring = cluster.keyring(options.keyring)
        password = options.password()
        with progress(f"sealing {options.keyring} anew", in_bytes=False) as advance:
            state = keyring.rekey(password, progress=advance)
        for role in (Role.KRSO, Role.KRCO):
            saved.forget(cluster.connection, saved.role_name(options.keyring, role))
    options.say(
        f"everything in {options.keyring} is sealed under its new key; log in again",
        keyring=options.keyring,
        generation=state.generation,
        objects=state.objects,
    )
