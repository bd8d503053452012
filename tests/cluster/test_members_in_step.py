"""Three real members, whole: what is destroyed or changed through one is so on all; what was acknowledged is nowhere missing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lnh
from commands import Forked
from lnh import LnhError, MemberBehind, MemberReadOnly, ObjectUnknown, OutcomeUnknown, admin
from lnh_cli.demo import local
from lnh_cli.demo.local import Member
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.errors import ApprovalNeeded, KeyringUnknown, PermissionDenied
from lnh_common.messages import membership
from lnh_common.messages.admin import KEYRING_DELETE, KeyringRef
from lnh_common.wire import codec
from lnh_services.paths import MemberDirectory
from members import Load, Members, private_key
from processes import ask, free_base_port
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0


class Signers:
    """A thread for each member that signs with one key as fast as it can, and knows what began after it was destroyed."""

    def __init__(self, keys: list[lnh.PrivateKey]) -> None:
        self.destroyed = threading.Event()
        self.signed = [0] * len(keys)
        self.late: list[int] = []
        self.load = Load(*(partial(self._sign, number, key) for number, key in enumerate(keys)))

    def all_sign(self) -> bool:
        return min(self.signed) > 20 or bool(self.load.errors)

    def _sign(self, number: int, key: lnh.PrivateKey) -> None:
        began_after = self.destroyed.is_set()
        key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
        self.signed[number] += 1
        if began_after:
            self.late.append(number)


def test_a_destroyed_key_signs_nowhere_once_destroy_has_returned(members: Members) -> None:
    with members.sessions() as sessions:
        for turn in range(6):
            label = f"doomed-{turn}"
            sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label=label)
            signers = Signers([private_key(session, label) for session in sessions])
            with signers.load:
                wait_until(signers.all_sign, "every member signs", WITHIN)
                private_key(sessions[turn % len(sessions)], label).destroy()
                signers.destroyed.set()
                wait_until(signers.load.has_ended, "every member refuses", WITHIN)
            assert signers.late == []
            assert [type(error) for error in signers.load.errors] == [ObjectUnknown] * len(sessions)


def test_a_changed_password_ends_every_session_on_every_member(members: Members) -> None:
    steps, place = members.steps, members.place
    fresh = place.root / "secrets" / "krco-fresh"
    fresh.write_text("a fresh password of the KRCO\n")
    fresh.chmod(0o600)
    with members.sessions() as sessions:
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="kept")
        keys = [private_key(session, "kept") for session in sessions]
        for each in keys:
            each.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
        steps.run(
            "lnh", "role", "password", "--keyring", "payments", "--role", "krco",
            "--password-file", place.secret("krco"), "--new-password-file", fresh, through=members.all[1],
        )  # fmt: skip
        place.secret("krco").write_text(fresh.read_text())  # for the tests to come, too
        for each in keys:
            with pytest.raises(LnhError) as refused:
                each.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
            assert type(refused.value).__name__ == "CredentialChanged"
    with members.sessions() as sessions:
        private_key(sessions[2], "kept").sign(b"data", lnh.Mechanism.ECDSA_SHA256)


class Interrupted(Exception):
    """Somebody pressed a key."""


class SignsOn:
    """A client through each member that signs on and on, and logs in again when its session is over."""

    def __init__(self, members: Members, opened: ExitStack) -> None:
        password = members.place.secret("krco").read_text().strip()
        self._logins: list[Callable[[], lnh.KeyringSession]] = []
        for member in members.all:
            keyring = opened.enter_context(lnh.connect("demo", directory=member.client)).keyring("payments")
            self._logins.append(partial(keyring.login, lnh.Role.KRCO, password))
        self.keys = [self._key(number) for number in range(len(members.all))]
        self.signed = [0] * len(self.keys)
        self.ended = [0] * len(self.keys)
        self.load = Load(*(partial(self._sign, number) for number in range(len(self.keys))))

    def _key(self, number: int) -> lnh.PrivateKey:
        session = self._logins[number]()
        session.abandon()  # a member is lost on the way
        return private_key(session, "rekeyed")

    def _sign(self, number: int) -> None:
        try:
            self.keys[number].sign(b"data", lnh.Mechanism.ECDSA_SHA256)
        except lnh.errors.CredentialChanged:
            self.ended[number] += 1
            self.keys[number] = self._key(number)
        else:
            self.signed[number] += 1

    def go_on(self, when: str) -> None:
        before = list(self.signed)
        gone_on = partial(self._gone_on, before)
        wait_until(gone_on, f"every client signs {when}", WITHIN)
        assert self.load.errors == []

    def _gone_on(self, before: list[int]) -> bool:
        apart = (now - then for now, then in zip(self.signed, before, strict=True))
        return bool(self.load.errors) or min(apart) > 5


def test_a_keyring_is_rekeyed_while_clients_sign_and_members_die(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    (lost, other) = (member for member in members.all if member is not primary)
    krso = members.place.secret("krso").read_text().strip()
    with members.sessions() as sessions:
        made = [key for _ in range(2) for key in sessions[0].generate_keys(100, lnh.KeyType.AES, id=b"resealed")]
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="rekeyed")
        encrypted = made[-1].encrypt(b"data")
        values = [os.urandom(limits.DATA_BYTES) for _ in range(10)]  # more than one commit carries
        large = [sessions[0].create_object(lnh.ObjectClass.DATA, value) for value in values]

    def interrupt(done: int, total: int) -> None:
        assert 0 < done < total
        raise Interrupted

    with ExitStack() as opened, members.longer_lease():
        clients = SignsOn(members, opened)
        with clients.load:
            clients.go_on("at first")
            with lnh.connect("demo", directory=lost.client) as cluster, pytest.raises(Interrupted):
                cluster.keyring("payments").rekey(krso, progress=interrupt)
            with members.brought_back(lost):
                lost.kill()
                clients.go_on(f"without {lost.name}, under two keys")
                with lnh.connect("demo", directory=other.client) as cluster:
                    with cluster.keyring("payments").login(lnh.Role.KRSO, krso) as officer:
                        begun = officer.rekey_state()
                    assert (begun.open, 0 < begun.done < begun.objects) == (True, True)
                words = ("lnh", "keyring", "rekey", "--keyring", "payments", "--json", "--timeout", "60")
                said = json.loads(members.steps.run(*words, through=other))
                assert said["generation"] == begun.generation
            clients.go_on("with one key again")
        assert clients.load.errors == []
        assert clients.ended == [1] * len(members.all), "a rekey ends a session once"
    with members.sessions() as sessions:
        for session in sessions:
            assert {each.handle for each in session.find(id=b"resealed", current=True)} == {key.handle for key in made}
            private_key(session, "rekeyed").sign(b"data", lnh.Mechanism.ECDSA_SHA256)
            again = session.get_object(made[-1].handle)
            assert isinstance(again, lnh.SecretKey)
            assert again.decrypt(encrypted) == b"data"
        found = [sessions[-1].get_object(each.handle).attributes[lnh.Attribute.VALUE] for each in large]
        assert found == values


def test_what_one_admin_asked_for_another_approves_elsewhere_and_it_is_done_once(members: Members) -> None:
    """Asked for through one member, approved through another, carried out through two at once: once."""
    with ExitStack() as opened:

        def log_in(member: Member, user: str = "admin") -> admin.Administration:
            cluster = opened.enter_context(lnh.connect("demo", directory=member.client, failover=False))
            given, po = (members.place.secret(each).read_text().strip() for each in ("admin", "po"))
            return opened.enter_context(admin.login(cluster.connection, user, given, po_password=po))

        first, second, third = map(log_in, members.all)
        first.add_user("other", "admin", members.place.secret("admin").read_text().strip())
        other = log_in(members.all[1], "other")
        doomed = first.create_keyrings("doomed")[0].id
        first.policy(dual_control=["keyring.delete"])
        with pytest.raises(ApprovalNeeded) as refused:
            first.delete_keyring("doomed")
        approval = bytes.fromhex(refused.value.detail["approval"])
        with pytest.raises(PermissionDenied, match="nobody approves what he asked for himself"):
            third.approve(approval)
        assert other.approve(approval).about == "keyring doomed"
        outcomes: list[str] = []

        def delete(by: admin.Administration) -> None:
            try:
                by.ask(KEYRING_DELETE, KeyringRef(keyring=doomed))
                outcomes.append("deleted")
            except LnhError as error:
                outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=delete, args=(by,)) for by in (second, third)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ApprovalNeeded", "deleted"]
        with pytest.raises(KeyringUnknown):
            first.keyring("doomed")
        with pytest.raises(ApprovalNeeded) as refused:
            second.policy(dual_control=[])
        other.approve(bytes.fromhex(refused.value.detail["approval"]))
        assert second.policy(dual_control=[])["dual_control"] == []
        first.delete_user("other")


def failures_kept(member: Member) -> list[list[Any]]:
    """What a member has counted by itself of failed logins."""
    kept: list[list[Any]] = codec.decode((member.directory / "data" / "hsm" / "guesses.cbor").read_bytes())
    return kept


def log_in_cut_off(members: Members, member: Member) -> None:
    """A member without its primary checks passwords, and counts wrong ones by itself; it may be right by now elsewhere."""
    with lnh.connect("demo", directory=member.client, failover=False) as cluster:
        keyring = cluster.keyring("payments")
        with pytest.raises(MemberBehind, match="wrong name or password"):
            keyring.login(lnh.Role.KRCO, "not the password")
        session = keyring.login(lnh.Role.KRCO, members.place.secret("krco").read_text().strip())
        session.random(16)
        session.abandon()
    (kept,) = failures_kept(member)
    assert kept[2] == 1


def test_without_its_primary_a_member_signs_refuses_writes_and_loses_nothing(
    members: Members,
) -> None:
    members.all_read_write()
    lost = members.primary()
    with members.sessions() as sessions:
        others = [session for session, member in zip(sessions, members.all, strict=True) if member is not lost]
        reader = next(member for member in members.all if member is not lost)
        _, key = others[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="signs on")
        made: list[bytes] = []
        refused: list[Exception] = []
        signatures = [0]

        def make() -> None:
            try:
                made.append(others[0].generate_key(lnh.KeyType.AES, 256, label="made").handle)
            except (MemberReadOnly, OutcomeUnknown) as error:
                refused.append(error)

        def sign() -> None:
            key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
            signatures[0] += 1

        with Load(make, sign) as load:
            wait_until(lambda: len(made) > 5, "keys are made", WITHIN)
            with members.brought_back(lost):
                lost.kill()
                wait_until(
                    lambda: any(isinstance(error, MemberReadOnly) for error in refused), "a refused write", WITHIN
                )
                seen = signatures[0]
                wait_until(lambda: signatures[0] > seen + 20 or load.errors, "signatures without a primary", WITHIN)
                log_in_cut_off(members, reader)
            before = len(made)
            wait_until(lambda: len(made) > before + 5 or load.errors, "writes go on", WITHIN)
        assert load.errors == []
        wait_until(lambda: failures_kept(reader) == [], "the cluster is told of the failed login", WITHIN)
        for session in sessions:
            found = {each.handle for each in session.find(label="made")}
            assert set(made) <= found


def refusal(members: Members, through: Member, *words: str) -> str:
    """What a command that must be refused says."""
    with pytest.raises(local.StepFailed) as failed:
        members.steps.run("lnh", *words, through=through)
    assert "refused:" in str(failed.value), failed.value
    return str(failed.value)


def groups_seen_by(members: Members, member: Member) -> dict[str, list[str]]:
    shown = json.loads(members.steps.run("lnh", "group", "list", "--json", through=member))
    return {each["label"]: each["members"] for each in shown}


def test_groups_are_the_same_on_every_member_whoever_changed_them(members: Members) -> None:
    steps = members.steps
    members.all_read_write()
    primary = members.primary()
    one, other = (member for member in members.all if member is not primary)
    steps.run("lnh", "group", "create", "east", through=one)
    assert "there is a group 'east'" in refusal(members, other, "group", "create", "east")
    steps.run("lnh", "member", "move", primary.name, "east", through=other)
    steps.run("lnh", "member", "move", one.name, "east", through=one)
    inside = sorted((primary.name, one.name))
    refused = refusal(members, primary, "group", "delete", "east", "--yes")
    assert f"has members: {', '.join(inside)}" in refused
    assert "lnh member move" in refused
    expected = {"east": inside, "local": [other.name]}

    def agree() -> bool:
        seen = [groups_seen_by(members, member) for member in members.all]
        if seen != [expected] * len(members.all):
            raise local.StepFailed(f"the members see {seen}, not {expected}")
        return True

    wait_until(agree, "the groups", WITHIN, every=0.1)

    with members.brought_back(primary):
        primary.kill()
        steps.wait_for(one, {one.name: "read-only", other.name: "read-only"})
        assert "lease" in refusal(members, one, "group", "create", "west")
    assert [groups_seen_by(members, member) for member in members.all] == [expected] * len(members.all)
    for name in inside:
        steps.run("lnh", "member", "move", name, "local", through=primary)
    steps.run("lnh", "group", "delete", "east", "--yes", through=other)
    shown = json.loads(steps.run("lnh", "member", "list", "--json", through=primary))
    assert {view["name"]: view["group"] for view in shown} == {member.name: "local" for member in members.all}


def test_every_member_tells_the_others_its_balancers_key(members: Members) -> None:
    members.all_read_write()
    directories = {member.name: MemberDirectory(member.directory) for member in members.all}
    keys = {name: curve.to_raw(each.client_public.read_bytes().strip()) for name, each in directories.items()}

    def told(to: MemberDirectory) -> bool:
        view = ask(to.membership_for_services, membership.STATUS)
        return {member.name: member.door for member in view.members} == keys

    for each in directories.values():
        wait_until(partial(told, each), "every member's key")


def test_top_on_a_terminal_is_drawn_again_and_again_until_it_is_interrupted(members: Members) -> None:
    members.all_read_write()
    screen, terminal = pty.openpty()
    environment = {**members.steps.environment, **members.all[1].variables(), "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        [Path(sys.executable).parent / "lnh", "top", "--interval", "0.2"], env=environment,
        stdin=terminal, stdout=terminal, stderr=terminal,
        # Where the tests run in a shell's background they ignore SIGINT, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as running:  # fmt: skip
        try:
            os.close(terminal)
            os.set_blocking(screen, False)
            shown = bytearray()

            def drawn() -> bool:
                with suppress(OSError):  # nothing to read, or nobody writes any more
                    shown.extend(os.read(screen, 1 << 16))
                return all(shown.count(member.name.encode()) > 2 for member in members.all)

            wait_until(drawn, "three screens of every member", WITHIN)
            running.send_signal(signal.SIGINT)

            def ended() -> bool:
                drawn()  # what nobody reads holds it up
                return running.poll() is not None

            wait_until(ended, "the end", WITHIN)
            assert running.returncode == 0
        finally:
            running.kill()
            os.close(screen)
    assert b"members read-write" in shown


def test_two_administrators_at_once_leave_one_primary_and_a_whole_cluster(members: Members) -> None:
    members.all_read_write()
    ended: list[str] = []

    def promote(member: Member, through: Member) -> None:
        try:
            members.steps.run("lnh", "member", "promote", member.name, through=through)
            ended.append("done")
        except local.StepFailed as error:
            ended.append(str(error))

    a, b, c = members.all
    administrators = [threading.Thread(target=promote, args=pair) for pair in ((b, a), (c, b), (a, c))]
    for each in administrators:
        each.start()
    for each in administrators:
        each.join(WITHIN * 2)
    assert len(ended) == len(administrators)
    assert all(each == "done" or "refused:" in each for each in ended), ended
    members.all_read_write()
    assert members.primary() in members.all
    with members.sessions() as sessions:
        handle = sessions[1].generate_key(lnh.KeyType.AES, 256, label=f"after {time.time():.0f}").handle
        for session in sessions:
            assert session.get_object(handle).handle == handle


def diagnosis(members: Members, through: Member) -> dict[str, set[str]]:
    """What `lnh doctor` finds wrong, and where; its exit status goes with it."""
    done = Forked(("lnh", "doctor", "--json"), {**members.steps.environment, **through.variables()}).wait()
    said = json.loads(done.out)
    assert done.code == (0 if said["healthy"] else 1)
    found: dict[str, set[str]] = {}
    for finding in said["findings"]:
        if finding["severity"] == "problem":
            found.setdefault(finding["check"], set()).add(finding["where"])
    return found


def tells_all(members: Members, through: Member) -> bool:
    """Whether `lnh top` shows of every member that all of it serves."""
    shown = json.loads(members.steps.run("lnh", "top", "--json", through=through))["seen"]["members"]
    assert [each["name"] for each in shown] == [member.name for member in members.all]
    told = [each["figures"] or {} for each in shown]
    return all(
        each.get("store") and each["store"]["applied_index"] > 0 and abs(seen["skew_ms"]) < 2000
        and each["balancer"] and each["balancer"]["workers_serving"] == 1
        and each["hsm"] and each["hsm"]["state"] == "activated"
        for seen, each in zip(shown, told, strict=True)
    )  # fmt: skip


def scraped(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_member_that_lost_power_is_seen_to_be_away_and_comes_back_in_step(members: Members) -> None:
    members.all_read_write()
    away = next(member for member in members.all if member is not members.primary())
    here = next(member for member in members.all if member is not away)
    wait_until(lambda: diagnosis(members, here) == {}, "a cluster that is well", WITHIN, every=0.1)
    wait_until(lambda: tells_all(members, away), "every member's figures", WITHIN, every=0.1)
    plain = members.steps.run("lnh", "top", through=away).splitlines()
    assert plain[0].split()[:4] == ["name", "group", "role", "state"]
    assert [line.split()[0] for line in plain[1:4]] == [member.name for member in members.all]
    port = free_base_port()  # while the member still has its own
    with members.brought_back(away):
        away.kill()
        wait_until(
            lambda: diagnosis(members, here) == {"member-unreachable": {away.name}},
            "the doctor to see it",
            WITHIN,
            every=0.1,
        )
        there = json.loads(members.steps.run("lnh", "doctor", "--member-dir", away.directory, "--json", fails_with=1))
        assert "stopped" in {finding["check"] for finding in there["findings"]}

        def tells_itself() -> bool:
            said = json.loads(
                members.steps.run("lnh", "doctor", "--member-dir", here.directory, "--json", fails_with=1)
            )
            assert said["seen_from"] == here.name
            return {f["check"] for f in said["findings"] if f["severity"] == "problem"} == {"member-unreachable"}

        wait_until(tells_itself, "the same, seen from that member", WITHIN, every=0.1)
        with members.sessions(away) as sessions:
            made = {sessions[0].generate_key(lnh.KeyType.AES, 256, label=os.urandom(4).hex()).handle for _ in range(20)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(members.steps.environment, "LNH_METRICS_PORT", str(port))
            members.steps.start(away)
    with members.sessions() as sessions:
        number = members.all.index(away)
        for handle in made:
            assert sessions[number].get_object(handle).handle == handle
    wait_until(
        lambda: all(
            f'lnh_member_state{{member="{each.name}",state="read-write"}} 1.0' in scraped(port) for each in members.all
        ),
        "metrics",
        WITHIN,
    )
