"""`lnh`: assembles the tree of nouns and verbs; of it, only the branch that a command line names.

All of the tree takes longer to import and to build than most commands take, so its first page of help is made of
`_ABOUT` alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Final

import typer

from lnh_cli.support import standard, terminal, words

# What `lnh --help` shows, panel by panel.
_KEYS: Final = "Use keys"
_KEYRINGS: Final = "Keyrings and roles"
_CLUSTER: Final = "Cluster"
_APPLIANCE: Final = "Appliance, at its local console"
_LOOK: Final = "Look and try"
_PANELS: Final = (_KEYS, _KEYRINGS, _CLUSTER, _APPLIANCE, _LOOK)

# A noun is a module of `nouns`, which has it in `app`; and its panel.
_NOUNS: Final = {
    "key": _KEYS,
    "certificate": _KEYS,
    "data": _KEYS,
    "keyring": _KEYRINGS,
    "role": _KEYRINGS,
    "pkcs11": _KEYRINGS,
    "approval": _CLUSTER,
    "backup": _CLUSTER,
    "bootstrap": _CLUSTER,
    "client": _CLUSTER,
    "cluster": _CLUSTER,
    "engine": _CLUSTER,
    "group": _CLUSTER,
    "kms": _CLUSTER,
    "member": _CLUSTER,
    "rest": _CLUSTER,
    "smk": _CLUSTER,
    "user": _CLUSTER,
    "appliance": _APPLIANCE,
    "audit": _APPLIANCE,
    "hsm": _APPLIANCE,
    "package": _APPLIANCE,
    "partition": _APPLIANCE,
}
# Further modules of a noun, which give its `app` their verbs when they are imported.
_MORE: Final = {"key": ("key_making",)}
# The modules that enter verbs of their own, which stand at the top of the tree, and the panel of these.
_VERBS: Final = {
    "cryptography": (("sign", "verify", "encrypt", "decrypt", "random", "digest"), _KEYS),
    "migrate": (("migrate",), _KEYS),
    "status": (("status",), _LOOK),
    "top": (("top",), _LOOK),
    "doctor": (("doctor",), _LOOK),
    "bench": (("bench",), _LOOK),
    "drill": (("drill",), _LOOK),
    "demo": (("demo",), _LOOK),
    "local": (("up", "down"), _LOOK),
}
_ROOMS: Final = {"demo": "demo", "local": "demo", "drill": "drill"}  # of the modules that are not in `nouns`
# What the first page of help says of each: of a noun what its `app` says of itself, of a verb its first line.
_ABOUT: Final = {
    "key": "Keys of a keyring, or of a partition.",
    "certificate": "Certificates of a keyring, and a CA whose key is in it.",
    "data": "Data objects of a keyring.",
    "keyring": "Keyrings of a cluster.",
    "role": "The KRSO and KRCO of a keyring.",
    "pkcs11": "The gateway for applications that speak PKCS#11.",
    "approval": "What waits for a second person (policy dual_control).",
    "backup": "The whole cluster in one encrypted file, on the member that is asked.",
    "bootstrap": "A whole cluster from members that run already, as compose.yaml has it; safe to run again.",
    "client": "Registered client machines.",
    "cluster": "The cluster as a whole.",
    "engine": "The etcd that can order a cluster's writes.",
    "group": "Affinity groups: a client's operations go to the group of the member it talks to.",
    "kms": "The KMS plugin (v2) of Kubernetes' API servers.",
    "member": "The members of a cluster.",
    "rest": "The cluster over HTTPS, for clients that know REST.",
    "smk": "The SMK, under which all of a cluster is sealed, its generations, and its backup.",
    "user": "Appliance users, the same on every member.",
    "appliance": "The appliance itself, at its local console.",
    "audit": "A member's audit trail.",
    "hsm": "A member's HSM, at its local console.",
    "package": "Packages of an appliance, at its local console.",
    "partition": "Application partitions of a member's HSM, at its local console.",
    "sign": "Sign a file of any length, or stdin: with a mechanism that hashes it, or makes a tag of it.",
    "verify": "Verify a signature; the exit status is 1 when it is wrong.",
    "encrypt": (
        "Encrypt a file, or up to 1 MiB of stdin: what is written is IV, ciphertext and tag, one after the other."
    ),
    "decrypt": "Decrypt what `encrypt` wrote; with --iv, what comes after the IV.",
    "random": "Random bytes from the HSM.",
    "digest": (
        "Hash a file of any length, or stdin: on this machine, since it is public data, or with --in-hsm in the HSM."
    ),
    "migrate": (
        "Bring keys, certificates and data of a PKCS#11 token or a partition into a keyring; run again, it goes on."
    ),
    "status": "Show the cluster, its members, and the services of the member that answers.",
    "top": (
        "Members, groups, leases, lag, operations a second, latency and queues of the whole cluster, live; Ctrl-C ends."
    ),
    "doctor": "Explain what is wrong with the cluster, as the member that answers sees it.",
    "bench": "Measure throughput and latency of one mechanism.",
    "drill": "Rehearse losses on a cluster that is made for it and thrown away, by the commands of docs/operations.md.",
    "demo": "Show it all: three members from nothing, keys, signatures, a lost primary, promotion, backup and restore.",
    "up": "Start three members with a registered client, a keyring and the dashboard, and leave them running.",
    "down": "End what `lnh up` started, and remove it (`--keep` leaves its data to start again).",
}
_FIRST_PAGE: Final = frozenset({"", "-h", "--help", "--version"})
_MODULES: Final = {name: name for name in _NOUNS} | {
    verb: name for name, (verbs, _) in _VERBS.items() for verb in verbs
}


class _Top(words.Group):
    panels = _PANELS


def tree(word: str = "", verb: str = "") -> typer.Typer:
    """Build the tree; when the first word of a command names a branch, that branch alone, and of that one verb.

    Args:
        verb: the second word; where a noun has no such verb, all of the noun is built.
    """
    from lnh_cli.support.command import Noun

    app = _trunk()
    for name in _needed(word):
        module = import_module(f"lnh_cli.{_ROOMS.get(name, 'nouns')}.{name}")
        if name in _VERBS:
            entered = Noun()
            module.enter(entered)
            entered.make(word)
            for command in entered.registered_commands:
                command.rich_help_panel = _VERBS[name][1]
                app.registered_commands.append(command)
        else:
            if not module.app.has(verb):
                for more in _MORE.get(name, ()):
                    import_module(f"lnh_cli.nouns.{more}")
            module.app.make(verb)
            app.add_typer(module.app, rich_help_panel=_NOUNS[name])
    return app


def contents() -> typer.Typer:
    """Build what the first page of help shows: each word of the tree and its line, and nothing behind it."""
    app = _trunk()
    for name, panel in _NOUNS.items():
        app.add_typer(typer.Typer(), name=name, help=_ABOUT[name], rich_help_panel=panel)
    for verbs, panel in _VERBS.values():
        for verb in verbs:
            app.command(verb, help=_ABOUT[verb], rich_help_panel=panel)(_version)
    return app


def _trunk() -> typer.Typer:
    """Make the top of the tree, with what stands there alone."""
    app = typer.Typer(
        name="lnh",
        help="A software HSM cluster: its members, keyrings and keys.",
        cls=_Top,
        no_args_is_help=True,
        rich_markup_mode=None,  # `pages` writes them
        pretty_exceptions_show_locals=False,
        context_settings=words.SETTINGS,
    )
    app.callback()(_options)
    app.command("version", cls=words.Verb, rich_help_panel=_LOOK)(_version)
    return app


def _needed(word: str) -> Iterable[str]:
    return (_MODULES[word],) if word in _MODULES else (*_NOUNS, *_VERBS)


def _version() -> None:
    """The version of this client."""
    from importlib.metadata import version

    terminal.echo(version("lnh"))


def _show_version(value: bool) -> None:
    if value:
        _version()
        raise typer.Exit


def _options(
    _: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """A software HSM cluster: its members, keyrings and keys."""


def main() -> None:
    """Run the console script."""
    standard.secure()
    words = _before_completion() if "_LNH_COMPLETE" in os.environ else sys.argv[1:]
    with standard.refusing():
        named(*words[:2])()


def named(word: str = "", verb: str = "") -> typer.Typer:
    """Build what a command line that begins so can lead to."""
    if word in _MODULES:
        return tree(word, verb)
    # A word that is no command is told from the names alone; what is behind `--` may be any.
    return tree() if word.startswith("-") and word not in _FIRST_PAGE else contents()


def _before_completion() -> list[str]:
    """Return the words before the one that a shell wants completed."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    words = line.split()
    return words[1 : len(words) if line.endswith(" ") else -1]


if __name__ == "__main__":
    main()
