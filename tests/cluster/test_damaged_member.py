"""A member whose disk was changed behind its back: it says so, does no work for others, and its clients are led elsewhere."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

import pytest

import lnh
from lnh_cli.demo.local import Member
from lnh_cli.demo.processes import of_member
from lnh_common.messages import balancer
from lnh_services.paths import MemberDirectory
from members import Load, Members, private_key
from processes import ask
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0
SIGNATURES = 300
LOGINS = 500


@contextmanager
def altered_policy(member: Member) -> Iterator[None]:
    """The policy's row is another one on the member's disk, and no worker of it has the one before in its cache."""
    path = member.directory / "data" / "store" / "store.db"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as disk:
        rows = disk.execute("SELECT number, body FROM items WHERE tbl LIKE '%policy'").fetchall()
        assert rows
        disk.executemany("UPDATE items SET body = ? WHERE number = ?", [(bytes(32), number) for number, _ in rows])
        try:
            end_hsm(member, "lnh_services.hsm.worker.loop")
            yield
        finally:
            disk.executemany("UPDATE items SET body = ? WHERE number = ?", [(body, number) for number, body in rows])
            end_hsm(member, "lnh_services.hsm")


def end_hsm(member: Member, part: str) -> None:
    """Kill what runs this part of it; it is started again."""
    for pid in of_member(member.directory, part):
        with suppress(ProcessLookupError):  # it ended with its parent
            os.kill(pid, signal.SIGKILL)


def log_in_alone(member: Member, password: str) -> None:
    """Log in until the member's own worker serves it: others do until it is back."""
    with lnh.connect("demo", directory=member.client, failover=False) as cluster:
        for _ in range(LOGINS):
            with suppress(lnh.Unreachable):  # it is starting
                cluster.keyring("payments").login(lnh.Role.KRCO, password).logout()


def states(members: Members, through: Member) -> dict[str, str]:
    shown = json.loads(members.steps.run("lnh", "member", "list", "--json", through=through))
    return {each["name"]: each["state"] for each in shown}


def status(member: Member) -> balancer.Status:
    return ask(MemberDirectory(member.directory).balancer_status, balancer.STATUS)


def findings(members: Members) -> dict[str, dict[str, str]]:
    found = json.loads(members.steps.run("lnh", "doctor", "--json", through=members.all[0], fails_with=1))["findings"]
    return {each["check"]: each for each in found}


def test_a_damaged_member_says_so_and_keeps_its_errors_to_itself(members: Members) -> None:
    first, _, third = members.all
    members.steps.run("lnh", "cluster", "policy", "minimum_rsa_bits=2048", "--timeout", "60")
    password, label = members.place.secret("krco").read_text().strip(), f"here-{os.urandom(4).hex()}"
    with members.sessions(third) as sessions, altered_policy(third):
        sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label=label)
        with pytest.raises(lnh.SealBroken, match="policy"):
            log_in_alone(third, password)

        # Its client is led to another member, and the other members' clients never hear of it.
        led = lnh.connect("demo", directory=third.client)
        with led as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, password) as session:
            private_key(session, label).sign(b"data", lnh.Mechanism.ECDSA_SHA256)
        keys = [private_key(session, label) for session in sessions]
        signed: list[bytes] = []
        sign = [partial(lambda key: signed.append(key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)), key) for key in keys]
        load = Load(*(each for each in sign for _ in range(8)))
        with load:
            wait_until(lambda: states(members, first)[third.name] == "damaged", "the damaged member", WITHIN)
            taken = status(third).taken
            wait_until(lambda: bool(load.errors) or len(signed) > SIGNATURES, "signatures", WITHIN)
            assert load.errors == []
            assert status(third).taken == taken
        wait_until(lambda: states(members, third)[third.name] == "damaged", "the damage, seen by its client", WITHIN)
        found = findings(members)["damaged"]
        assert found["where"] == third.name
        assert "policy" in found["what"]
        assert f"lnh member remove {third.name}" in found["do"]
    wait_until(lambda: states(members, first)[third.name] == "read-write", "the member, mended and started", WITHIN)

    def signs() -> bool:
        with members.sessions() as sessions:
            return bool(private_key(sessions[2], label).sign(b"data", lnh.Mechanism.ECDSA_SHA256))

    wait_until(signs, "a signature through it", WITHIN)
