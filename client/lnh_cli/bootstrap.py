"""Makes a cluster of members that run already, with a client and a keyring: the one-shot service of compose.

Every step looks at what is there before it acts, so a run that was cut off anywhere is completed by the next. A
condition that passes by itself (a member that is not up yet) is waited for by looking again. A finished cluster is its
administrators': another run changes nothing of it, and does not bring back what they took out.

Everything is under one root: each member's directory, the client's, and the secrets, by the program that needs them:

    secrets/member     the secret that opens a member's HSM at its start
    secrets/client     passwords of the cluster's administrators, and of the keyring's roles
    secrets/bootstrap  secrets that are needed once, and the notes of this program
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lnh import admin, registration
from lnh.admin import Administration
from lnh.cluster import Cluster, connect_to
from lnh.configuration import Configuration, Registration
from lnh.console import Console
from lnh_common.errors import (
    ArgumentInvalid,
    Busy,
    ConfigurationInvalid,
    DeadlineExceeded,
    DomainMismatch,
    InvitationBurnt,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    KeyringUnknown,
    MemberReadOnly,
    NameTaken,
    NoCluster,
    NotActivated,
    OutcomeUnknown,
    Unreachable,
)
from lnh_common.messages.console import ConsoleCluster
from lnh_common.messages.session import Role

AUDIENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "member": ("activation",),
    "client": ("admin", "po", "krso", "krco"),
    "bootstrap": ("so", "domain", "krso-first"),
}
"""Every secret, by who needs it."""

ADMIN: Final = "admin"
_SECRET_BYTES: Final = 18  # random ones, in base64
_GIVEN_BYTES: Final = 4096
_LOOK_EVERY: Final = 0.2  # seconds
_NAMES: Final = 9  # a client's name and those after it, when attempts that were cut off took some

_PASSES: Final = (
    Busy, DeadlineExceeded, MemberReadOnly, NoCluster, NotActivated, OutcomeUnknown, Unreachable,
)  # fmt: skip
_INVITATION_IS_NO_GOOD: Final = (
    ArgumentInvalid, DomainMismatch, InvitationBurnt, InvitationExpired, InvitationUnknown, InvitationUsed, NameTaken,
)  # fmt: skip

Say = Callable[[str], None]


def provide_secrets(root: Path, given: Path | None, say: Say) -> None:
    """Put every secret into its audience's directory under `root`, mode 0400, its owner that of the directory.

    A secret that is given as a file counts, whatever was there; another is drawn at random once, and stays. Raises
    ConfigurationInvalid for a given one that is empty or too long.
    """
    for audience, names in AUDIENCES.items():
        directory = root / audience
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            there = directory / name
            source = given / name if given is not None else None
            if source is not None and source.is_file():
                contents = source.read_bytes()
                if not contents.strip() or len(contents) > _GIVEN_BYTES:
                    raise ConfigurationInvalid(f"{source} has {len(contents)} bytes; a secret has 1 to {_GIVEN_BYTES}")
                if there.exists() and there.read_bytes() == contents:
                    continue
                say(f"{name}: as given")
            elif there.exists():
                continue
            else:
                contents = secrets.token_urlsafe(_SECRET_BYTES).encode() + b"\n"
                say(f"{name}: drawn at random")
            _write_secret(there, contents)


def _write_secret(path: Path, contents: bytes) -> None:
    """Replace the file at once, with the owner of its directory."""
    owner = path.parent.stat()
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(contents)
        if owner.st_uid != os.geteuid():
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


@dataclass(frozen=True)
class Plan:
    """The cluster that there is to be in the end.

    Args:
        root: where everything is.
        members: names of the members' directories; the cluster is created in the first.
        label: of the cluster.
        groups: affinity groups, and their members; a member that is in none stays in `local`.
        client: name of the client, and of its directory.
        keyring: label of the one that is made.
        patience: seconds to wait for conditions that pass by themselves, all in all.
    """

    root: Path
    members: Sequence[str]
    label: str
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    client: str = "client"
    keyring: str = "payments"
    patience: float = 180.0

    def secret(self, name: str) -> str:
        """Read a secret, without the line end; raises ConfigurationInvalid when it is not there."""
        audience = next(audience for audience, names in AUDIENCES.items() if name in names)
        path = self.root / "secrets" / audience / name
        try:
            return path.read_text("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            raise ConfigurationInvalid(f"{path}: {error.strerror}") from None

    @property
    def notes(self) -> Path:
        """The directory that keeps invitations until they are used, and the note that all is done."""
        return self.root / "secrets" / "bootstrap"

    @property
    def finished(self) -> Path:
        """The path of the note that all is done."""
        return self.notes / "finished"


@dataclass
class Bootstrap:
    """Carries out a plan; `say` is told what is done."""

    plan: Plan
    say: Say
    _names: dict[str, str] = field(default_factory=dict)

    def run(self) -> bool:
        """Do what is not done yet; tells whether there was anything.

        Raises the error that stands in the way and does not pass by itself within the plan's patience.
        """
        with self._alone():
            if self.plan.finished.exists():
                self.say(f"cluster {self.plan.label} is set up already ({self.plan.finished}); nothing was changed")
                return False
            ends, told = time.monotonic() + self.plan.patience, ""
            while True:
                try:
                    self._pass()
                    break
                except _PASSES as error:
                    if time.monotonic() > ends:
                        raise
                    if str(error) != told:
                        told = str(error)
                        self.say(f"waiting: {told}")
                    time.sleep(_LOOK_EVERY)
            self.plan.finished.write_text(f"{self.plan.label}\n")
            self.say(f"cluster {self.plan.label} is set up, and {self.plan.client} is registered with it")
            return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one run go on at a time."""
        descriptor = os.open(self.plan.notes, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _pass(self) -> None:
        first, *others = self.plan.members
        with ThreadPoolExecutor(len(self.plan.members)) as together:  # the HSMs' Argon2id at once
            list(together.map(self._prepare, self.plan.members))
        found = self._found(first)
        registered = self._register(found)
        configuration = Configuration(self.plan.root / self.plan.client)
        with connect_to(configuration, registered) as cluster, self._administer(cluster) as administration:
            for name in others:
                self._join(name, administration)
            self._arrange(administration)
            self._make_keyring(cluster, administration)

    def _console(self, name: str) -> Console:
        return Console(self.plan.root / name)

    def _prepare(self, name: str) -> None:
        """Initialise and activate a member's HSM, so that it may take part in a cluster."""
        with self._console(name) as console:
            hsm = console.hsm()
            appliance = console.appliance()
            self._names[name] = appliance.name
            if hsm.state == "uninitialised":
                activation, domain = self.plan.secret("activation").encode(), self.plan.secret("domain")
                console.init_hsm(appliance.name, self.plan.secret("so"), activation, domain)
                self.say(f"{appliance.name}: HSM initialised")
            elif hsm.state == "sealed":
                raise NotActivated(f"the HSM of {appliance.name} is not activated")
            if "cluster" not in appliance.packages:
                console.install_package("cluster", self.plan.secret("so"))
                self.say(f"{appliance.name}: cluster package installed")

    def _found(self, name: str) -> ConsoleCluster:
        """Create the cluster in this member."""
        with self._console(name) as console:
            if not console.appliance().initialised:
                console.init_appliance(ADMIN, self.plan.secret("admin"))
                self.say(f"{self._names[name]}: appliance initialised, with its first admin")
            if not (found := console.cluster()).created:
                console.create_cluster(self.plan.label, self.plan.secret("so"), self.plan.secret("po"))
                found = console.cluster()
                self.say(f"{self._names[name]}: cluster {self.plan.label} created, {found.fingerprint}")
            return found

    def _register(self, found: ConsoleCluster) -> Registration:
        """Register the client through the first member."""
        configuration = Configuration(self.plan.root / self.plan.client)
        cluster = bytes.fromhex(found.cluster)
        for one in configuration.registrations():
            if one.cluster == cluster:
                return one
        for number in range(1, _NAMES + 1):
            name = self.plan.client if number == 1 else f"{self.plan.client}-{number}"
            try:
                registered = registration.register(
                    configuration, found.door, name, ADMIN, lambda: self.plan.secret("admin"),
                    wanted=found.fingerprint, cluster=cluster,
                )  # fmt: skip
            except NameTaken:  # by an attempt that was cut off before the client had heard
                if number == _NAMES:
                    raise
                continue
            self.say(f"{name}: registered through {found.door}")
            return registered
        raise AssertionError("the last name was taken or not")

    @contextlib.contextmanager
    def _administer(self, cluster: Cluster) -> Iterator[Administration]:
        password, po_password = self.plan.secret("admin"), self.plan.secret("po")
        with admin.login(cluster.connection, ADMIN, password, po_password=po_password) as administration:
            yield administration

    def _join(self, name: str, administration: Administration) -> None:
        """Have the member take part in the cluster."""
        with self._console(name) as console:
            if not console.cluster().created:
                self._let_in(name, console, administration)
                self.say(f"{self._names[name]}: joined")
            progress = console.progress()
            if progress.state != "read-write":
                raise NoCluster(f"{self._names[name]} is {progress.state} {progress.problem}".rstrip())

    def _let_in(self, name: str, console: Console, administration: Administration) -> None:
        kept, so_password = self.plan.notes / f"invitation-{name}", self.plan.secret("so")
        if kept.exists():
            try:
                console.join_cluster(kept.read_text("utf-8-sig"), so_password)
            except _INVITATION_IS_NO_GOOD as error:
                kept.unlink()
                self.say(f"{self._names[name]}: a new invitation, since {error}")
            else:
                return
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(administration.invite().text)
        try:
            console.join_cluster(kept.read_text("utf-8-sig"), so_password)
        except NameTaken:  # an attempt that was cut off, and whose invitation is over, left its name in the cluster
            kept.unlink()
            administration.delete_member(self._names[name])
            raise Busy(f"{self._names[name]} was listed by an attempt that was cut off") from None

    def _arrange(self, administration: Administration) -> None:
        """Move every member to its group."""
        there = {group.label: group.members for group in administration.groups()}
        for label, members in self.plan.groups.items():
            if label not in there:
                administration.create_group(label)
                self.say(f"group {label} created")
            for name in (self._names[member] for member in members):
                if name not in there.get(label, ()):
                    administration.move_member(name, label)
                    self.say(f"{name}: in group {label}")

    def _make_keyring(self, cluster: Cluster, administration: Administration) -> None:
        """Create the keyring, its KRSO and its KRCO with passwords of their own."""
        label = self.plan.keyring
        try:
            administration.keyring(label)
        except KeyringUnknown:
            administration.create_keyrings(label)
            self.say(f"keyring {label} created")
        roles = administration.show_keyring(label).roles
        first, krso, krco = (self.plan.secret(name) for name in ("krso-first", "krso", "krco"))
        if not any(role.startswith("krso") for role in roles):
            administration.init_krso(label, first)
        keyring = cluster.keyring(label)
        if "krso" not in roles:
            keyring.change_password(Role.KRSO, first, krso)
            self.say(f"keyring {label}: KRSO set")
        if "krco" not in roles:
            with keyring.login(Role.KRSO, krso) as session:
                session.set_krco(krco)
            self.say(f"keyring {label}: KRCO set")
