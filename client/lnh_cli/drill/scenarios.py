"""The scenarios of the drill, as a table: what is done, by which command of docs/operations.md, and what must be so.

Those of a throw-away cluster begin and end with the members a, b and c in step, and a as the primary. Templates in
braces are filled by the runner: `{a.directory}`, `{a.port}`, `{a.address}` of a member, `{secrets}`, `{kept}` (a
directory of the scenario's own), `{archive}` (the one in it), `{cluster}` and `{fingerprint}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lnh_cli.drill.steps import (
    Account,
    Act,
    Cut,
    Destroy,
    Flow,
    Heal,
    Hold,
    Kill,
    LoseSecret,
    Probe,
    PutBack,
    Resume,
    Run,
    Scenario,
    See,
    Start,
    Step,
    Wire,
)

_SETTING_UP: Final = "Setting up a member"
_MORE: Final = "More members"
_FAULTS: Final = "What a fault looks like"
_GONE: Final = "Members that go"
_BACKUP: Final = "Backup"
_RESTORE: Final = "Restore"
_SMK: Final = "The SMK"
_PASSWORDS: Final = "Passwords"
_WATCHING: Final = "Watching it"

READ_WRITE: Final = "read-write"
READ_ONLY: Final = "read-only"


def _name(letter: str) -> str:
    return f"member-{letter}"


def _states(**states: str) -> Mapping[str, str]:
    return {_name(letter): state for letter, state in states.items()}


_ALL: Final = _states(a=READ_WRITE, b=READ_WRITE, c=READ_WRITE)

_ACCOUNT: Final = Step("Every key whose making was acknowledged is found through every member", Account())
_SIGNS: Final = Step("The client signs", Flow())
_MAKES: Final = Step("The client makes keys", Flow(makes=True))
_SIGNS_ELSEWHERE: Final = Step("The client of that member signs on, through another one", Flow())


def _write_is_refused(through: str) -> Step:
    command = "lnh key generate refused -k payments --type AES"
    return Step(
        f"A write through {_name(through)} is refused, and says why",
        Probe(command, fails_with=1, says="primary", through=through),
    )


def _deletes(letter: str, through: str) -> Step:
    return Step(
        f"Delete it from the cluster, through {_name(through)}",
        Run("lnh member delete NAME", {"NAME": _name(letter)}, more=("--yes",), through=through),
        _GONE,
    )


def _all_are_in_step(through: str) -> Step:
    return Step("Every member is read-write", See(_ALL, through))


def _directory(letter: str, section: str) -> Step:
    values = {
        "DIR": f"{{{letter}.directory}}",
        "NAME": _name(letter),
        "PORT": f"{{{letter}.port}}",
        "FILE": "{secrets}/activation",
    }
    command = "lnh-member --member-dir DIR --init --name NAME --base-port PORT --activation-file FILE"
    return Step(f"Make a directory for {_name(letter)}, at the old address", Run(command, values), section)


def _hsm(letter: str, section: str) -> tuple[Step, ...]:
    directory = f"{{{letter}.directory}}"
    values = {"DIR": directory, "LABEL": _name(letter), "FILE": "{secrets}/domain"}
    return (
        Step(
            f"Initialise the HSM of {_name(letter)}, in the cluster's cloning domain",
            Run(
                "lnh hsm init --member-dir DIR --label LABEL --domain-file FILE",
                values,
                more=("--activation-file", "{secrets}/activation"),
            ),
            section,
        ),
        Step(
            "Install the cluster package",
            Run("lnh package install cluster --member-dir DIR", {"DIR": directory}, more=("--yes",)),
            section,
        ),
    )


def _start(letter: str, words: str = "Start it", section: str = _SETTING_UP) -> Step:
    return Step(words, Start(letter), section)


def _joins(letter: str, through: str) -> tuple[Step, ...]:
    """Make the steps by which a new member takes the place of a lost one."""
    invitation = f"{{kept}}/invitation-{letter}"
    return (
        _directory(letter, _MORE),
        _start(letter),
        *_hsm(letter, _MORE),
        Step(
            "Invite it",
            Run("lnh member invite --output INVITATION", {"INVITATION": invitation}, through=through),
            _MORE,
        ),
        Step(
            "It joins: the SMK goes from HSM to HSM, then it catches up",
            Run(
                "lnh cluster join --member-dir DIR --invitation INVITATION",
                {"DIR": f"{{{letter}.directory}}", "INVITATION": invitation},
            ),
            _MORE,
        ),
    )


def _registers(letter: str) -> Step:
    command = "LNHClientRegistration --member HOST:7100 --cluster-id ID --fingerprint SHA256:... --user admin"
    return Step(
        f"Register the client of {_name(letter)} again",
        Run(
            command,
            {"HOST:7100": f"{{{letter}.address}}", "ID": "{cluster}", "SHA256:...": "{fingerprint}"},
            more=("--name", f"client-of-{_name(letter)}", "--password-file", "{secrets}/admin"),
            through=letter,
        ),
        _SETTING_UP,
    )


_LOST_SECONDARY: Final = Scenario(
    "member",
    "A member is lost: first for a while, then for good",
    _FAULTS,
    (
        Step("Kill a member that is not the primary, member-b: all of its processes at once", Kill(("b",))),
        _SIGNS_ELSEWHERE,
        Step("Writes go on, after a lease at most", Flow(makes=True)),
        Step("The others are read-write", See(_states(a=READ_WRITE, b="unreachable", c=READ_WRITE))),
        _start("b", "Start it again"),
        _all_are_in_step("a"),
        _ACCOUNT,
        Step("Lose it for good: kill member-b, and remove all that it had", Destroy(("b",))),
        _SIGNS_ELSEWHERE,
        _deletes("b", "a"),
        *_joins("b", "a"),
        _registers("b"),
        _all_are_in_step("a"),
        _MAKES,
        _ACCOUNT,
    ),
    client="b",
)

_LOST_PRIMARY: Final = Scenario(
    "primary",
    "The primary is lost: first for a while, then for good",
    _FAULTS,
    (
        Step("Kill the primary, member-a: all of its processes at once", Kill(("a",))),
        _SIGNS_ELSEWHERE,
        Step("The others are read-only", See(_states(b=READ_ONLY, c=READ_ONLY), "b")),
        _write_is_refused("c"),
        _start("a", "Start it again"),
        _all_are_in_step("b"),
        _MAKES,
        _ACCOUNT,
        Step("Lose it for good: kill member-a, and remove all that it had", Destroy(("a",))),
        Step("The others are read-only", See(_states(b=READ_ONLY, c=READ_ONLY), "b")),
        _deletes("a", "b"),
        Step("The others are read-write", See(_states(b=READ_WRITE, c=READ_WRITE), "b")),
        _MAKES,
        *_joins("a", "b"),
        _registers("a"),
        Step("Make it the primary again", Run("lnh member promote NAME", {"NAME": _name("a")}, through="b"), _MORE),
        _all_are_in_step("b"),
        _MAKES,
        _ACCOUNT,
    ),
)

_CUT: Final = Scenario(
    "cut",
    "A member is cut off from the others, and joined again",
    _FAULTS,
    (
        Step("Have the members reach one another through wires that can be cut", Wire(proxied=True)),
        Step("Cut member-b off from the others; its clients still reach it", Cut("b")),
        Step("It is read-only", See(_states(b=READ_ONLY), "b")),
        _SIGNS,
        _write_is_refused("b"),
        Step("The others go on: they are read-write", See(_states(a=READ_WRITE, c=READ_WRITE))),
        Step("A write through member-c is made", Probe("lnh key generate made -k payments --type AES", through="c")),
        Step("Join it again", Heal()),
        _all_are_in_step("b"),
        _MAKES,
        _ACCOUNT,
        Step("Have the members reach one another directly again", Wire(proxied=False)),
        _all_are_in_step("a"),
        _MAKES,
        _ACCOUNT,
    ),
    client="b",
)

_NO_NEW_KEYS: Final = Step("Have the client make no keys: they would be in no backup", Hold())
_ARCHIVE: Final = Step(
    "Back up the cluster, and copy the archive away",
    Run("lnh backup now [--to DIRECTORY]", {"DIRECTORY": "{kept}"}),
    _BACKUP,
)
_BACK: Final[tuple[Step, ...]] = (
    _registers("a"),
    Step("It is read-write", See(_states(a=READ_WRITE))),
    Step("The client signs with its key of before", Flow()),
    *_joins("b", "a"),
    *_joins("c", "a"),
    _registers("b"),
    _registers("c"),
    _all_are_in_step("a"),
    Step("Have the client make keys again", Resume()),
    _MAKES,
    _ACCOUNT,
)

_FROM_NOTHING: Final = Scenario(
    "restore",
    "Every member is lost; an archive and the sealed state of one HSM are left",
    _RESTORE,
    (
        _NO_NEW_KEYS,
        _ARCHIVE,
        Step("Verify it, restoring nothing", Run("lnh backup verify NAME", {"NAME": "{archive.name}"}), _BACKUP),
        Step("Lose every member, and all but the HSM's sealed state of member-a", Destroy(("a", "b", "c"), keeps="a")),
        _directory("a", _MORE),
        Step("Put the HSM's state into it", PutBack("a")),
        _start("a"),
        Step(
            "Restore the archive, as the SO",
            Run("lnh backup restore FILE --member-dir DIR", {"FILE": "{archive}", "DIR": "{a.directory}"}),
        ),
        *_BACK,
    ),
)

_FROM_SHARES: Final = Scenario(
    "smk",
    "Every HSM is lost; an archive, a backup of the SMK and three of its five shares are left",
    _SMK,
    (
        _NO_NEW_KEYS,
        Step(
            "Back up the SMK, to be opened by any three of five shares",
            Run(
                "lnh smk backup FILE --shares 3-of-5 [--shares-to DIRECTORY]",
                {"FILE": "{kept}/smk", "DIRECTORY": "{kept}/shares"},
            ),
        ),
        _ARCHIVE,
        Step("Lose every member", Destroy(("a", "b", "c"))),
        _directory("a", _MORE),
        _start("a"),
        *_hsm("a", _SMK),
        Step(
            "Restore the SMK by the second, third and fifth share, as the SO",
            Run(
                "lnh smk restore FILE --member-dir DIR [--share-file SHARE ...]",
                {
                    "FILE": "{kept}/smk",
                    "DIR": "{a.directory}",
                    "SHARE": tuple(f"{{kept}}/shares/smk.share-{number}" for number in (2, 3, 5)),
                },
            ),
        ),
        Step(
            "Restore the archive, as the SO",
            Run("lnh backup restore ARCHIVE --member-dir DIR", {"ARCHIVE": "{archive}", "DIR": "{a.directory}"}),
        ),
        *_BACK,
    ),
)

_LOST_ADMIN: Final = Scenario(
    "admin",
    "Nobody knows the admin's password any more",
    _PASSWORDS,
    (
        Step("Forget the admin's password", LoseSecret("admin")),
        Step("The admin is refused", Probe("lnh user list", fails_with=1, says="password")),
        Step("The keys are none of the admin's business: the client signs", Flow()),
        _MAKES,
        Step(
            "Give the admin a new password, as the SO of any member's HSM",
            Run(
                "lnh appliance reset-admin --member-dir DIR",
                {"DIR": "{b.directory}"},
                more=("--new-password-file", "{secrets}/admin"),
            ),
        ),
        *(
            Step(f"The admin gets in with it through {_name(letter)}", Probe("lnh user list", through=letter))
            for letter in "abc"
        ),
        _ACCOUNT,
    ),
)

SCENARIOS: Final = (_LOST_SECONDARY, _LOST_PRIMARY, _CUT, _FROM_NOTHING, _FROM_SHARES, _LOST_ADMIN)
"""All that is rehearsed on a throw-away cluster."""

SAFE: Final = ("members", "backup", "promote")
"""The names of what is rehearsed on a cluster that serves."""


def on_cluster(members: Mapping[str, str], primary: str) -> tuple[Scenario, ...]:
    """Make the scenarios that are safe on a cluster that serves: nothing is destroyed, and nobody is stopped.

    Args:
        members: the members' addresses, by name; there are two at least.
        primary: the primary's name.
    """
    other = next(name for name in members if name != primary)
    in_step = See({**dict.fromkeys(members, READ_WRITE)})
    asked = [
        Step(f"{name} answers, and says how it sees the others", Run("lnh status", more=("--member", address)))
        for name, address in members.items()
    ]

    def promoted(name: str) -> tuple[Step, ...]:
        act: Act = Run("lnh member promote NAME", {"NAME": name})
        return (
            Step(f"Promote {name}: writes pause for a moment", act, _MORE),
            Step("Every member is read-write", in_step),
            _MAKES,
        )

    return (
        Scenario(
            "members",
            "Each member is asked in turn",
            _WATCHING,
            (*asked, Step("All are read-write", in_step), _ACCOUNT),
        ),
        Scenario(
            "backup",
            "A backup is made and verified; the archive stays",
            _BACKUP,
            (
                Step("Back up the cluster, on the member that is asked", Run("lnh backup now [--to DIRECTORY]")),
                Step(
                    "Read every byte of it, restoring nothing",
                    Run("lnh backup verify NAME", {"NAME": "{archive.name}"}),
                ),
                _ACCOUNT,
            ),
        ),
        Scenario(
            "promote",
            "Another member becomes primary, and hands the place back",
            _MORE,
            (Step("Every member is read-write", in_step), *promoted(other), *promoted(primary), _ACCOUNT),
        ),
    )
