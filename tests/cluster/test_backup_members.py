"""Backup and restore of three whole members under load, with members and services killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lnh
from commands import Forked
from lnh import admin
from lnh_cli.demo import local
from lnh_cli.demo.local import Member, StepFailed
from lnh_common.messages import backup, store
from lnh_common.messages.admin import MEMBER_REMOVE, MemberRef
from lnh_services.paths import MemberDirectory
from members import Load, Members, private_key
from processes import ask
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0


def labels(session: lnh.KeyringSession) -> set[str]:
    return {str(one.label) for one in session.find(object_class=lnh.ObjectClass.PRIVATE_KEY)}


def everywhere(members: Members) -> set[str]:
    """The keys that there are, as every member sees them: they agree."""
    with members.sessions() as sessions:
        found = [labels(session) for session in sessions]
    assert found[0] == found[1] == found[2]
    return found[0]


def sign(key: lnh.PrivateKey) -> None:
    key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)


def backup_service(member: Member) -> int:
    """The process of a member's backup service."""
    return service(member, b"lnh_services.backup")


def service(member: Member, name: bytes) -> int:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if name in words and os.fsencode(member.directory) in words:
                return int(entry.name)
    raise AssertionError(f"{member.name} runs no {name.decode()}")


def administration(members: Members, member: Member) -> tuple[lnh.Cluster, admin.Administration]:
    cluster = lnh.connect("demo", directory=member.client, failover=False)
    secret = {name: members.place.secret(name).read_text().strip() for name in ("admin", "po")}
    return cluster, admin.login(cluster.connection, "admin", secret["admin"], po_password=secret["po"])


def test_a_restore_through_any_member_is_one_on_all_of_them(members: Members, tmp_path: Path) -> None:
    a, b, c = members.all
    with members.sessions() as sessions:
        public, private = sessions[2].generate_keypair(lnh.KeyType.EC, curve="P-256", label="before")
        signature = private.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
    before = everywhere(members)
    members.steps.run("lnh", "group", "create", "far")
    members.steps.run("lnh", "member", "move", c.name, "far")
    made = json.loads(members.steps.run("lnh", "backup", "now", "--to", tmp_path, "--json", through=b))
    with members.sessions() as sessions:
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="since")
        members.steps.run("lnh", "member", "move", c.name, "local")
        members.steps.run("lnh", "group", "delete", "far", "--yes")
        numbers = iter(range(1_000_000))

        def write() -> None:
            sessions[1].generate_keypair(lnh.KeyType.EC, curve="P-256", label=f"meanwhile-{next(numbers)}")

        keys = [private_key(session, "before") for session in sessions]
        loads = [Load(write), *(Load(partial(sign, key)) for key in keys)]
        for load in loads:
            load.__enter__()
        try:
            # Through a member that did not make it: the file is brought there.
            members.steps.run("lnh", "backup", "restore", tmp_path / made["name"], "--yes", through=c)
            wait_until(lambda: all(load.has_ended() for load in loads), "the end of every session of before", WITHIN)
        finally:
            for load in loads:
                load.__exit__()
    writer, *signers = loads
    assert {type(error) for load in signers for error in load.errors} == {lnh.ClusterRestored}
    # Of a write that was under way, and is asked for again after the restore, nobody knows whether it was made before.
    assert {type(error) for error in writer.errors} <= {lnh.ClusterRestored, lnh.OutcomeUnknown}
    assert everywhere(members) == before
    members.all_read_write()
    shown = json.loads(members.steps.run("lnh", "member", "list", "--json", through=a))
    assert {view["name"]: view["group"] for view in shown} == {a.name: "local", b.name: "local", c.name: "far"}
    members.steps.run("lnh", "member", "move", c.name, "local")
    members.steps.run("lnh", "group", "delete", "far", "--yes")
    with members.sessions() as sessions:
        for session in sessions:
            kept = session.get_object(public.handle)
            assert isinstance(kept, lnh.PublicKey)
            assert kept.verify(b"data", signature, lnh.Mechanism.ECDSA_SHA256)
            assert private_key(session, "before").sign(b"data", lnh.Mechanism.ECDSA_SHA256)
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="after")
    assert everywhere(members) == before | {"after"}
    for member in (a, b, c):
        members.steps.run("lnh", "audit", "verify", "--member-dir", member.directory)


def test_killed_at_any_point_a_restore_is_done_or_did_not_happen(members: Members) -> None:
    a, b, _ = members.all
    drawn = random.Random(random.getrandbits(32))  # where to kill; replayed with the seed of the run
    with members.sessions() as sessions:
        for number in range(40):  # so that there is something to do
            sessions[0].generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label=f"load-{number}")
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="archived")
    archived = everywhere(members)
    name = json.loads(members.steps.run("lnh", "backup", "now", "--json", through=b))["name"]
    with members.sessions() as sessions:
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="later")
    later = everywhere(members)
    address = MemberDirectory(b.directory).backup_for_services

    def goes_on_no_more() -> bool:
        return not ask(address, backup.STATUS).running

    outcomes = []
    for victim in (b"lnh_services.backup", b"lnh_services.hsm", b"lnh_services.store"):
        cluster, session = administration(members, b)
        with cluster, session:
            job = session.backups.restore(name)
            threading.Event().wait(drawn.uniform(0.0, 0.4))  # anywhere in it
            os.kill(service(b, victim), signal.SIGKILL)
            session.abandon()
        members.all_read_write()
        wait_until(goes_on_no_more, "the end of it, if it goes on", WITHIN)
        found = everywhere(members)
        assert found in (archived, later), f"half of a restore ({job.archive})"
        outcomes.append(found == archived)
        if found == archived:
            with members.sessions() as sessions:
                sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="later")
            later = everywhere(members)
    members.all_read_write()

    def restored() -> bool:
        command = ("lnh", "backup", "restore", name, "--yes")
        done = Forked(command, members.steps._environment_of(b)).wait()
        assert done.code == 0 or "under way" in done.err, done.err
        return done.code == 0

    wait_until(restored, "a restore that nobody disturbs", WITHIN, every=0.2)
    assert everywhere(members) == archived
    directory = MemberDirectory(a.directory)
    wait_until(
        lambda: ask(directory.store_for_services, store.STATUS).hidden == 0, "the swept store", WITHIN
    )  # fmt: skip


def test_a_member_removed_while_it_backs_up_is_replaced_and_leaves_nothing_half_done(members: Members) -> None:
    members.all_read_write()
    primary, chosen = members.primary(), Member(members.place.root, "w")
    steps, patiently = members.steps, ("--timeout", "60")
    invitation = members.place.root / "invitation-w"
    try:
        local.prepare(steps, chosen)
        steps.run("lnh", "member", "invite", "--output", invitation)
        steps.run("lnh", "cluster", "join", "--member-dir", chosen.directory, "--invitation", invitation)
        steps.wait_for(primary, {member.name: "read-write" for member in (*members.all, chosen)})

        directory, pid = MemberDirectory(chosen.directory).backup, backup_service(chosen)
        half = stopped_halfway(members, primary, chosen)
        try:
            run = scheduled(members, primary)
            assert (run["name"], run["ended"]) == (chosen.name, 0)
            cluster, session = administration(members, primary)
            with cluster, session:
                order = MemberRef(member=session.member(chosen.name).id)
                steps.run("lnh", "member", "remove", chosen.name, "--yes", *patiently, through=primary)
                again = session.ask(MEMBER_REMOVE, order).remark  # as when the answer was lost
                assert again.startswith("it was removed before"), again
                assert "dismissal" not in again
            wait_until(lambda: scheduled(members, primary)["name"] == primary.name, "another that makes it", WITHIN)
            wait_until(lambda: scheduled(members, primary)["archive"], "its archive", WITHIN)
        finally:
            os.kill(pid, signal.SIGCONT)
        run = scheduled(members, primary)
        assert run["problem"] == ""
        steps.run("lnh", "backup", "verify", str(run["archive"]), through=primary)
        wait_until(lambda: not any(path.exists() for path in half), "the end of what was half done", WITHIN)
        assert not list(directory.glob(".*"))
    finally:
        chosen.stop()
        steps.run("lnh", "backup", "schedule", "--off", through=primary)


def stopped_halfway(members: Members, primary: Member, chosen: Member) -> list[Path]:
    """Have a member make a scheduled backup, and stop its service (SIGSTOP) within; what is half done.

    That is not there for long: a run that was over before it was seen is followed by another.
    """
    directory, pid = MemberDirectory(chosen.directory).backup, backup_service(chosen)
    for _ in range(10):
        made = set(directory.glob("*.lnhb"))
        since = datetime.fromtimestamp(int(time.time()) - 3 * 3600 - 60, timezone.utc)
        words = ("--every", "1", "--from", f"{since:%Y-%m-%dT%H:%M:%S}", "--on", chosen.name)
        members.steps.run("lnh", "backup", "schedule", *words, through=primary)
        ends = time.monotonic() + WITHIN
        while set(directory.glob("*.lnhb")) == made:
            assert time.monotonic() < ends, "the chosen member begins no backup"
            time.sleep(0.001)
            if half := list(directory.glob(".*")):
                os.kill(pid, signal.SIGSTOP)
                wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "a stop")
                if all(path.exists() for path in half):
                    return half
                os.kill(pid, signal.SIGCONT)
    raise AssertionError("every backup was over before it was seen")


def scheduled(members: Members, through: Member) -> dict[str, object]:
    """The schedule's last run."""
    shown = json.loads(members.steps.run("lnh", "backup", "schedule", "--json", through=through))
    found = shown["run"]
    assert isinstance(found, dict)
    return found


def smk(members: Members, through: Member) -> dict[str, Any]:
    shown = json.loads(members.steps.run("lnh", "smk", "show", "--json", through=through))
    assert isinstance(shown, dict)
    return shown


def is_rolled_over(members: Members, through: Member, generation: int) -> bool:
    """Whether everything is sealed under this generation, and every HSM has taken it."""
    try:
        shown = smk(members, through)
    except StepFailed:
        return False  # it was killed just now
    taken = all(each["newest"] == generation for each in shown["members"])
    return taken and shown["in_use"] == generation and shown["progress"] == "no rollover is under way"


def holds_alone(members: Members, through: Member, generation: int) -> bool:
    """Whether the HSM of this member has no other generation."""
    return [each["generation"] for each in smk(members, through)["generations"]] == [generation]


def test_the_smk_is_rolled_over_under_clients_and_killed_cores_and_retired(members: Members) -> None:
    a, b, c = members.all
    first = smk(members, a)["in_use"]  # another test may have rolled over
    label = f"of-generation-{first}"
    drawn = random.Random(random.getrandbits(32))  # where to kill; replayed with the seed of the run
    with members.sessions() as sessions:
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label=label)
    archived = everywhere(members)
    old = json.loads(members.steps.run("lnh", "backup", "now", "--json", through=a))["name"]

    # Clients that read and write through every member notice nothing.
    with members.longer_lease(), members.sessions() as sessions:
        numbers = iter(range(1_000_000))

        def write(session: lnh.KeyringSession) -> None:
            session.generate_key(lnh.KeyType.AES, 256, label=f"meanwhile-{next(numbers)}")

        keys = [private_key(session, label) for session in sessions]
        loads = [*(Load(partial(sign, key)) for key in keys), *(Load(partial(write, session)) for session in sessions)]
        with ExitStack() as running:
            for load in loads:
                running.enter_context(load)
            members.steps.run("lnh", "smk", "rollover", "--yes", through=b)
            wait_until(lambda: is_rolled_over(members, c, first + 1), "the end of the rollover", WITHIN)
        assert [error for load in loads for error in load.errors] == []

    # One member is away, and the primary's core and store are killed on the way.
    with members.brought_back(c):
        c.kill()
        members.steps.run("lnh", "smk", "rollover", "--yes", "--timeout", "60", through=a)
        for victim in (b"lnh_services.hsm", b"lnh_services.store", b"lnh_services.hsm"):
            threading.Event().wait(drawn.uniform(0.0, 1.0))  # anywhere in it
            with suppress(AssertionError):  # it does not run at this moment
                os.kill(service(a, victim), signal.SIGKILL)
    for through in members.all:
        wait_until(
            partial(is_rolled_over, members, through, first + 2), "the end of the one that was disturbed", WITHIN
        )
        assert len(smk(members, through)["generations"]) == 3
    with members.sessions() as sessions:
        for session in sessions:
            sign(private_key(session, label))

    # What was archived before both comes back, until what sealed it is retired.
    members.steps.run("lnh", "backup", "restore", old, "--yes", "--timeout", "60", through=a)
    wait_until(partial(is_rolled_over, members, a, first + 2), "all that came back sealed anew", WITHIN)
    local.log_in(members.steps)
    assert everywhere(members) == archived
    done = json.loads(members.steps.run("lnh", "smk", "retire", "--yes", "--json", through=a))
    assert (done["newest"], done["generations"], old in done["lost"]) == (first + 2, [first + 2], True)
    for through in members.all:
        wait_until(partial(holds_alone, members, through, first + 2), "the older generations dropped", WITHIN)
    with pytest.raises(StepFailed, match="which this HSM does not hold"):
        members.steps.run("lnh", "backup", "restore", old, "--yes", through=a)
    assert everywhere(members) == archived
    for member in members.all:
        members.steps.run("lnh", "audit", "verify", "--member-dir", member.directory)
