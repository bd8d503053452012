"""A cluster backed up by real processes: made while writes go on, listed, verified, fetched and removed; and what goes wrong.

Archives are on a small disk of their own, where one may be mounted.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import failed
import lnh
from commands import Forked
from lnh import admin
from lnh.backups import Backups, copy_in
from lnh.console import Console
from lnh_common.messages import backup, store
from lnh_common.wire import archives
from lnh_services.backup.files import is_scheduled
from lnh_services.initialise import initialise_member
from processes import Processes, RunningMember, SmallDisk, WrongClock, ask
from waits import wait_until

pytestmark = pytest.mark.several

SO, ADMIN, PO, FIRST, KRSO, KRCO = (f"the password of {who}" for who in ("so", "admin", "po", "first", "krso", "krco"))
PATIENCE = 60.0  # seconds for one operation: this machine may be busy
ACTIVATION = b"activation secret"
DOMAIN = "the cloning domain"
MEGABYTES = 32


@dataclass
class Site:
    root: Path
    member: RunningMember
    processes: Processes
    clock: WrongClock
    disk: SmallDisk | None = None
    passwords: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    running: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Path:
        return self.root / "client"

    @property
    def archives(self) -> Path:
        """The member's, as they are seen from here."""
        return self.disk.path if self.disk is not None else self.member.directory.backup

    def whole(self) -> set[str]:
        """The names of the archives; each is whole, and nothing else is there."""
        names = {path.name for path in self.archives.iterdir() if path.name != "filler"}
        for name in names:
            with (self.archives / name).open("rb") as file:
                archives.check_copy(file)
        return names

    def start(self) -> None:
        under = self.disk.enter() if self.disk is not None else ()
        self.running = self.member.start(under=under, PYTHONPATH=str(self.clock.directory))

    def stop(self) -> None:
        assert self.running is not None
        self.running.terminate()
        self.running.wait(20)

    def register(self) -> None:
        address = f"127.0.0.1:{self.member.settings.base_port}"
        lnh.register(
            lnh.Configuration(self.client), address, "web-1", "admin", lambda: ADMIN, wanted=self.fingerprint
        )  # fmt: skip

    def connect(self) -> lnh.Cluster:
        return lnh.connect("prod", directory=self.client, timeout=PATIENCE)

    def run(self, *words: str, status: int | None = 0) -> str:
        """A command as an administrator types it; what it printed, or with another status (None: any) what it said."""
        patiently = () if words[:2] == ("smk", "restore") else ("--timeout", str(PATIENCE))
        environment = {
            **os.environ, **self.passwords, "LNH_CONFIG": str(self.client), "XDG_RUNTIME_DIR": str(self.client),
        }  # fmt: skip
        done = Forked(("lnh", *words, *patiently), environment).wait()
        assert status in (None, done.code), done.out + done.err
        return {None: done.out + done.err, 0: done.out}.get(status, done.err)

    def json(self, *words: str) -> dict[str, object]:
        found = json.loads(self.run(*words, "--json"))
        assert isinstance(found, dict)
        return found


def set_up(site: Site) -> None:
    member, root = site.member, site.root
    for name, secret in (("ADMIN", ADMIN), ("PO", PO), ("SO", SO), ("KRCO", KRCO)):
        path = root / f"{name}.password"
        path.write_text(secret)
        site.passwords[f"LNH_{name}_PASSWORD_FILE"] = str(path)
    with Console(member.directory.root) as console:
        console.init_appliance("admin", ADMIN)
        console.init_hsm("A", SO, ACTIVATION, DOMAIN)
        console.install_package("cluster", SO)
        created = console.create_cluster("prod", SO, PO)
    site.fingerprint = created.fingerprint
    site.register()
    with site.connect() as cluster:
        with admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as session:
            session.policy(objects_per_keyring=1_000_000)
            session.create_keyrings("payments")
            session.init_krso("payments", FIRST)
        keyring = cluster.keyring("payments")
        keyring.change_password(lnh.Role.KRSO, FIRST, KRSO)
        with keyring.login(lnh.Role.KRSO, KRSO) as holder:
            holder.set_krco(KRCO)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with failed.directory() as root, ExitStack() as ends:
        processes = Processes()
        clock = WrongClock(root / "clock", "lnh_services.backup")
        one = Site(root, RunningMember(processes, root / "A", workers=1), processes, clock)
        disk = SmallDisk(one.member.directory.backup, MEGABYTES)
        ends.callback(disk.end)
        ends.enter_context(processes)
        one.disk = disk if disk.works else None
        one.start()
        set_up(one)
        yield one


def test_a_backup_is_made_while_writes_go_on_and_is_listed_verified_and_fetched(site: Site, tmp_path: Path) -> None:
    made, stop = threading.Event(), threading.Event()

    def write() -> None:
        with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
            while not stop.is_set():
                session.generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label="meanwhile")
                made.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert made.wait(20)
        archive = site.json("backup", "now", "--to", str(tmp_path))
    finally:
        stop.set()
        writer.join()
    name = str(archive["name"])
    copy = tmp_path / name
    assert archive["copy"] == str(copy)
    with copy.open("rb") as file:
        about = archives.check_copy(file)
    assert (about.header.index, about.manifest.items) == (archive["index"], archive["items"])
    assert about.manifest.items["object"] >= 1
    assert about.manifest.items["keyring"] == 1
    assert about.manifest.items["credential"] == 4  # admin, PO, KRSO, KRCO
    assert b"payments" not in copy.read_bytes(), "a stolen archive does not even tell names"
    assert (site.archives / name).stat().st_mode & 0o777 == 0o600

    there = {path.name for path in site.archives.iterdir()}
    assert {view["name"] for view in json.loads(site.run("backup", "list", "--json"))} == there >= {name}
    assert site.json("backup", "show", name)["label"] == "prod"
    assert "whole and genuine" in site.run("backup", "verify", name)
    assert site.run("backup", "download", name, "--to", str(tmp_path)).strip() == f"downloaded {copy}"

    part = tmp_path / "again" / f".{name}.part"
    part.parent.mkdir()
    part.write_bytes(copy.read_bytes()[:1000])  # as an interrupted download leaves it
    site.run("backup", "download", name, "--to", str(part.parent))
    assert (part.parent / name).read_bytes() == copy.read_bytes()
    assert not part.exists()

    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (site.archives / "damaged.lnhb").write_bytes(damaged)
    (site.archives / "short.lnhb").write_bytes(damaged[:5000])
    assert "is damaged" in site.run("backup", "verify", "damaged.lnhb", status=1)
    assert "ends early" in site.run("backup", "verify", "short.lnhb", status=1)
    assert "no archive none.lnhb" in site.run("backup", "verify", "none.lnhb", status=1)
    for each in ("damaged.lnhb", "short.lnhb"):
        site.run("backup", "delete", each, "--yes")
    assert {path.name for path in site.archives.iterdir()} == there
    with Console(site.member.directory.root) as console:
        acts = [(record["operation"], record["outcome"]) for record in console.audit()]
    assert ("backup.now", "ok") in acts
    assert ("backup.delete", "ok") in acts


def test_what_somebody_puts_beside_the_archives_is_named_and_passed_over(site: Site) -> None:
    there = {path.name for path in site.archives.iterdir()}
    os.mkfifo(site.archives / "fifo.lnhb")
    (site.archives / "link.lnhb").symlink_to("/etc/passwd")
    (site.archives / "gone-auto.lnhb").symlink_to("nowhere")
    problems = {view["name"]: view["problem"] for view in json.loads(site.run("backup", "list", "--json"))}
    assert set(problems) == there | {"fifo.lnhb", "link.lnhb", "gone-auto.lnhb"}
    assert {name for name, problem in problems.items() if not problem} == there
    assert "a FIFO" in problems["fifo.lnhb"]
    said = site.run("backup", "show", "fifo.lnhb", status=1)
    assert "it is a FIFO" in said
    assert "move it out of" in said
    assert "root:" not in site.run("backup", "verify", "link.lnhb", status=1)
    name = str(site.json("backup", "now")["name"])
    for each in ("fifo.lnhb", "link.lnhb", "gone-auto.lnhb", name):
        site.run("backup", "delete", each, "--yes")
    assert {path.name for path in site.archives.iterdir()} == there


def test_the_schedule_is_kept_and_says_so(site: Site) -> None:
    assert "no time zone" in site.run("backup", "schedule", "--daily", "02:30", "--zone", "Mars/North", status=1)
    assert "no member" in site.run("backup", "schedule", "--every", "6", "--on", "nobody", status=1)
    weekly = site.json("backup", "schedule", "--weekly", "Sun 02:30", "--zone", "Europe/Berlin", "--on", "A")
    assert weekly["words"] == "weekly on Sunday at 02:30 Europe/Berlin, keeping 7"

    before = last_run(site)  # another test's
    soon = int(time.time()) + 3600
    daily = f"{datetime.fromtimestamp(soon, timezone.utc):%H:%M}"
    site.run("backup", "schedule", "--daily", daily)
    wait_until(lambda: status(site).next == soon // 60 * 60, "the time of the next run")
    due(site, "--keep", "1")
    run = run_after(site, before)
    wait_until(lambda: status(site).last == run["ended"], "a look at it: the service tells what it saw then", PATIENCE)
    told = status(site)
    assert (told.last_member, told.last_problem, told.overdue) == ("A", "", False)
    assert is_scheduled(told.newest)
    assert last_run(site)["archive"] == told.newest
    assert site.json("backup", "schedule", "--off")["words"] == "none"


DAY = 86_400


def test_a_clock_set_forward_and_back_stops_no_schedule_and_costs_no_new_archive(site: Site) -> None:
    before = last_run(site)
    due(site, "--keep", "2")
    usual = run_after(site, before)
    try:
        site.clock.set(2 * DAY)
        ahead = run_after(site, usual)
        assert ahead["slot"] > time.time() + DAY
    finally:
        site.clock.set(0)
    back = run_after(site, ahead)
    assert back["slot"] <= time.time(), "a run at a time that has not come yet counts for nothing"
    wait_until(lambda: usual["archive"] not in site.whole(), "the oldest is removed")
    assert {ahead["archive"], back["archive"]} <= site.whole(), "those made last stay, whatever time they bear"
    assert not status(site).overdue
    site.run("backup", "schedule", "--off")
    site.run("backup", "delete", ahead["archive"], "--yes")


def last_run(site: Site) -> dict[str, Any]:
    """The schedule's, if there is one and it is over."""
    run = site.json("backup", "schedule").get("run")
    return run if isinstance(run, dict) and run["ended"] else {}


def run_after(site: Site, before: dict[str, Any]) -> dict[str, Any]:
    """The run that made another archive than that one."""
    known = before.get("archive", "")
    wait_until(lambda: last_run(site).get("archive", known) != known, "the next scheduled run", PATIENCE)
    return last_run(site)


def status(site: Site) -> backup.Status:
    return ask(site.member.directory.backup_for_services, backup.STATUS)


def due(site: Site, *words: str) -> None:
    """A schedule whose newest slot came within the last minute, after that of the last run, whoever's that was."""
    run = site.json("backup", "schedule").get("run")
    now, tried = int(time.time()), int(run["slot"]) if isinstance(run, dict) else 0
    slot = max(now - 60, tried + 1)
    assert slot <= now, "the last run's slot is still to come"
    begun = datetime.fromtimestamp(slot - 3 * 3600, timezone.utc)  # two more were missed before it: one is made up
    site.run("backup", "schedule", "--every", "1", "--from", f"{begun:%Y-%m-%dT%H:%M:%S}", *words)


def problems(site: Site) -> set[str]:
    """What `lnh doctor` finds wrong."""
    said = json.loads(site.run("doctor", "--json", status=None))
    return {finding["check"] for finding in said["findings"] if finding["severity"] == "problem"}


def test_a_disk_that_is_full_read_only_or_gone_is_told_and_nothing_is_lost(site: Site) -> None:
    if site.disk is None:
        pytest.skip("needs root or user namespaces to mount a small file system")
    site.run("backup", "now")
    kept = site.whole()
    some, complaints = min(kept), {"backup-failed", "backup-overdue"}
    with site.connect() as cluster, admin.login(cluster.connection, "admin", ADMIN) as session:
        backups = session.backups

        def goes_on() -> None:
            kept.add(backups.wait(backups.now()).archive)
            assert site.whole() == kept

        with site.disk.full():
            told = site.run("backup", "now", status=1)
            assert "No space left on device" in told
            assert "try: make room on the disk of" in told
            assert site.whole() == kept
            due(site)
            wait_until(lambda: status(site).last_problem, "the scheduled run", PATIENCE)
            assert "No space left on device" in status(site).last_problem
            wait_until(lambda: complaints <= problems(site), "the doctor's complaint", PATIENCE)
        goes_on()

        with site.disk.read_only():
            for act in (lambda: backups.wait(backups.now()), lambda: backups.delete(some)):
                with pytest.raises(lnh.StorageFailed, match="Read-only file system") as caught:
                    act()
                assert "write to" in str(caught.value.detail["advice"])
            backups.wait(backups.verify(some))
        goes_on()
        due(site)
        wait_until(lambda: status(site).last and not status(site).last_problem, "the next scheduled run", PATIENCE)
        assert site.whole() > kept
        wait_until(lambda: not complaints & problems(site), "the doctor's content", PATIENCE)
        site.run("backup", "schedule", "--off")

        with site.disk.lost():
            for look in (lambda: backups.wait(backups.now()), backups.list):
                with pytest.raises(lnh.StorageFailed, match="No such file or directory") as caught:
                    look()
                assert "mount its disk" in str(caught.value.detail["advice"])
            wait_until(lambda: "backup-failed" in problems(site), "the doctor's complaint", PATIENCE)
        kept = set()
        goes_on()
        wait_until(lambda: not complaints & problems(site), "the doctor's content", PATIENCE)


def test_backups_at_once_are_made_one_by_one_or_refused(site: Site) -> None:
    before = site.whole()
    made: set[str] = set()
    refused: list[lnh.Busy] = []
    together = threading.Barrier(3)
    with site.connect() as cluster, ExitStack() as sessions:

        def make(backups: Backups) -> None:
            together.wait(PATIENCE)
            try:
                made.add(backups.wait(backups.now()).archive)
            except lnh.Busy as busy:
                refused.append(busy)

        makers = []
        for _ in range(3):
            session = sessions.enter_context(admin.login(cluster.connection, "admin", ADMIN))
            makers.append(threading.Thread(target=make, args=(session.backups,)))
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join(PATIENCE)
    assert len(made) + len(refused) == len(makers)
    assert all("to make an archive is under way" in str(busy) for busy in refused)
    assert made
    assert site.whole() == before | made


def killed(site: Site, name: str) -> None:
    """A service is killed, and is there again."""
    before = site.member.service(name).pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: site.member.service(name).pid not in (0, before) and site.member.is_ready(), f"the {name} again")
    if name == "hsm":
        with Console(site.member.directory.root) as console:
            console.activate(ACTIVATION)


def test_killed_anywhere_a_backup_is_whole_or_not_there_and_the_next_one_is_made(site: Site) -> None:
    drawn = random.Random(random.getrandbits(32))  # where to kill; replayed with the seed of the run
    for victim in ("backup", "backup", "hsm", "store"):
        with site.connect() as cluster, admin.login(cluster.connection, "admin", ADMIN) as session:
            session.backups.now()
            threading.Event().wait(drawn.uniform(0.0, 0.1))  # anywhere in it
            killed(site, victim)
            session.abandon()
        if victim == "backup":
            site.whole()  # nothing half there, since it was started again
    made = site.json("backup", "now")["name"]
    assert made in site.whole()
    assert "whole and genuine" in site.run("backup", "verify", str(made))


def test_a_restore_puts_everything_back_on_the_running_cluster(site: Site, tmp_path: Path) -> None:
    other = lnh.Configuration(tmp_path / "other")
    address = f"127.0.0.1:{site.member.settings.base_port}"
    lnh.register(other, address, "web-2", "admin", lambda: ADMIN, wanted=site.fingerprint)
    with site.connect() as cluster:
        keyring = cluster.keyring("payments")
        with keyring.login(lnh.Role.KRCO, KRCO) as session:
            public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="before")
            signature = private.sign(b"data")
            gone = session.generate_key(lnh.KeyType.AES, 256, label="destroyed since")
        name = str(site.json("backup", "now", "--to", str(tmp_path))["name"])
        with keyring.login(lnh.Role.KRCO, KRCO) as session:
            session.get_object(gone.handle).destroy()
            session.generate_key(lnh.KeyType.AES, 256, label="made since")
        with admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as session_of_admin:
            session_of_admin.add_user("since", "monitor", "a password of since")
            session_of_admin.create_keyrings("since")
            session_of_admin.revoke_client("web-2")
        keyring.change_password(lnh.Role.KRCO, KRCO, "another password")
        assert keyring.rekey(KRSO).generation == 2

        old = keyring.login(lnh.Role.KRCO, "another password")
        key = private_key(old)
        told = site.run("backup", "restore", name, status=2)
        assert "the password of the krco of keyring payments is another one in it" in told
        assert "the password of user since is not in it" in told
        assert "no terminal to ask" in told
        assert key.sign(b"data"), "asked only: nothing is changed"
        report = site.json("backup", "restore", str(tmp_path / name), "--yes")
        assert report["changes"] == 3, "the KRSO's, too: a rekey gave it another id"

        with pytest.raises(lnh.ClusterRestored):
            key.sign(b"data")
        with pytest.raises(lnh.PasswordIncorrect):
            keyring.login(lnh.Role.KRCO, "another password")
        assert cluster.keyring("payments").id == keyring.id, (
            "the client's own session was ended too, and is another one"
        )
        with keyring.login(lnh.Role.KRSO, KRSO) as session:
            assert session.rekey_state().generation == 1, "what the archive holds is under the key of then"
        with keyring.login(lnh.Role.KRCO, KRCO) as session:
            kept = session.get_object(public.handle)
            assert isinstance(kept, lnh.PublicKey)
            assert kept.verify(b"data", signature)
            assert kept.verify(b"other", private_key(session).sign(b"other"))
            assert [one.label for one in session.find(label="destroyed since")] == ["destroyed since"]
            assert list(session.find(label="made since")) == []
            assert session.generate_key(lnh.KeyType.AES, 256, label="after").handle
        with admin.login(cluster.connection, "admin", ADMIN) as session_of_admin:
            assert [user.name for user in session_of_admin.users()] == ["admin"]
            assert [view.label for view in session_of_admin.keyrings()] == ["payments"]
    with pytest.raises(lnh.ClientRevoked), lnh.connect("prod", directory=other.directory) as cluster:
        list(cluster.keyrings())
    assert status(site).problem == ""
    wait_until(lambda: ask(site.member.directory.store_for_services, store.STATUS).hidden == 0, "the swept store")
    with Console(site.member.directory.root) as console:
        assert console.verify_audit().problem == ""


def test_a_cluster_comes_back_from_an_archive_and_its_hsms_state_alone(site: Site, tmp_path: Path) -> None:
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="kept")
        signature = private.sign(b"data")
    name = str(site.json("backup", "now", "--to", str(tmp_path))["name"])
    directory = site.member.directory
    assert "an admin and the PO restore into it" in site.run(
        "backup", "restore", name, "--member-dir", str(directory.root), status=1
    )
    with Console(directory.root) as console:
        before = console.cluster().member
    site.stop()
    shutil.copytree(directory.data("hsm"), tmp_path / "hsm")
    for path in (*site.archives.iterdir(), *directory.root.iterdir()):
        if path != directory.backup:  # where the disk is mounted
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    initialise_member(directory, site.member.settings)
    shutil.copytree(tmp_path / "hsm", directory.data("hsm"), dirs_exist_ok=True)
    site.start()
    with Console(directory.root) as console:
        console.activate(ACTIVATION)

    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[-400] ^= 1
    (tmp_path / "damaged.lnhb").write_bytes(damaged)
    at_console = ("--member-dir", str(directory.root))
    site.run("backup", "restore", str(tmp_path / "damaged.lnhb"), *at_console, status=1)
    assert "no archive gone.lnhb" in site.run("backup", "restore", "gone.lnhb", *at_console, status=1)
    drawn = random.Random(random.getrandbits(32))  # where to kill; replayed with the seed of the run
    copy_in(tmp_path / name, site.archives)
    with suppress(lnh.AlreadyDone):  # it was done when it was killed
        for victim in ("backup", "store"):
            with Console(directory.root) as console:
                console.restore_cluster(name, SO)
            threading.Event().wait(drawn.uniform(0.0, 0.3))  # anywhere in it
            killed(site, victim)

    def restored() -> bool:
        told = site.run("backup", "restore", str(tmp_path / name), *at_console, status=None)
        if "under way" in told:
            return False
        assert "this member has the cluster again" in told or "this member's store holds the cluster" in told
        return True

    wait_until(restored, "the end of the one that was disturbed")
    with Console(directory.root) as console:
        assert console.cluster().member != before, "no member's id is used twice"
        assert console.verify_audit().problem == ""
    site.register()  # again, for the member's new CURVE key: the client is known, so nobody is asked
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        kept = session.get_object(public.handle)
        assert isinstance(kept, lnh.PublicKey)
        assert kept.verify(b"data", signature)
        again = session.get_object(private.handle)
        assert isinstance(again, lnh.PrivateKey)
        assert kept.verify(b"other", again.sign(b"other"))
        assert session.generate_key(lnh.KeyType.AES, 256, label="after").handle

    # ... and with the HSM's state lost too, from the archive and a backup of the SMK, in another HSM.
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a passphrase of the backup")
    site.passwords["LNH_SMK_PASSWORD_FILE"] = str(passphrase)
    made = site.json("smk", "backup", str(tmp_path / "smk"))
    assert (tmp_path / "smk").stat().st_mode & 0o777 == 0o600
    shown = site.json("smk", "show")
    assert made["generations"] == shown["generations"]
    split = site.json("smk", "backup", str(tmp_path / "split"), "--shares", "2-of-3", "--shares-to", str(tmp_path))
    shares = [word for share in list(split["shares"])[1:] for word in ("--share-file", share)]  # type: ignore[call-overload]
    assert "is there already" in site.run("smk", "backup", str(tmp_path / "smk"), status=2)
    site.stop()
    for path in (*site.archives.iterdir(), *directory.root.iterdir()):
        if path != directory.backup:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    initialise_member(directory, site.member.settings)
    site.start()
    with Console(directory.root) as console:
        console.init_hsm("another", SO, ACTIVATION, DOMAIN)
        console.install_package("cluster", SO)
    wrong = site.run(
        "smk",
        "restore",
        str(tmp_path / "smk"),
        "--passphrase-file",
        str(site.root / "SO.password"),
        *at_console,
        status=1,
    )
    assert "does not open" in wrong
    few = site.run("smk", "restore", str(tmp_path / "split"), *shares[:2], *shares[:2], *at_console, status=1)
    assert "1 different shares; 2 open it" in few
    restored_smk = site.json("smk", "restore", str(tmp_path / "split"), *shares, *at_console)
    assert restored_smk["fingerprint"] == site.fingerprint
    copy_in(tmp_path / name, site.archives)
    site.run("backup", "restore", name, *at_console)
    site.register()
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        kept = session.get_object(public.handle)
        assert isinstance(kept, lnh.PublicKey)
        assert kept.verify(b"data", signature)


def private_key(session: lnh.KeyringSession) -> lnh.PrivateKey:
    key = session.get_key(label="before", object_class=lnh.ObjectClass.PRIVATE_KEY)
    assert isinstance(key, lnh.PrivateKey)
    return key
