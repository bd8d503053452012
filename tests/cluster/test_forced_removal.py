"""Two of three members are lost for good: the third goes on by force, and what was lost does not come back by itself."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

import lnh
from lnh.console import Console
from lnh_cli.demo import local
from lnh_cli.demo.local import Member
from members import Members, private_key, three_members
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0


def removal(members: Members, lost: Member, through: Member, *words: str) -> str:
    return members.steps.run("lnh", "member", "delete", lost.name, "--yes", "--timeout", "60", *words, through=through)


def states(members: Members, through: Member) -> dict[str, str]:
    shown = json.loads(members.steps.run("lnh", "member", "list", "--json", through=through))
    return {view["name"]: view["state"] for view in shown}


def is_expelled(member: Member) -> bool:
    with Console(member.directory) as console, suppress(lnh.NotActivated):  # not yet: it is starting
        return bool(console.cluster().expelled)
    return False


def test_the_last_of_three_takes_over_by_force_and_keeps_every_key() -> None:
    with three_members() as members:
        a, b, c = members.all
        with members.sessions() as sessions:
            for session in sessions:
                session.abandon()  # members are lost on the way
            sessions[0].generate_keypair(lnh.KeyType.EC, curve="P-256", label="kept")
            key = private_key(sessions[2], "kept")
            signature = key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)
            for lost in (a, b):
                lost.kill()
            wait_until(lambda: states(members, c)[c.name] == "read-only", "the last one is read-only", WITHIN)
            with pytest.raises(local.StepFailed, match="unless forced \\(--force\\)"):
                removal(members, a, c)
            assert states(members, c)[c.name] == "read-only", "a refused order changes nothing"

            removal(members, a, c, "--force")
            removal(members, b, c)
            assert states(members, c) == {c.name: "read-write"}
            with pytest.raises(lnh.ClusterRestored, match="opened by force"):
                key.sign(b"data", lnh.Mechanism.ECDSA_SHA256)

        with members.sessions(a, b) as (session,):
            session.abandon()
            public = session.get_key(label="kept", object_class=lnh.ObjectClass.PUBLIC_KEY)
            assert isinstance(public, lnh.PublicKey)
            public.verify(b"data", signature, lnh.Mechanism.ECDSA_SHA256)
            private_key(session, "kept").sign(b"data", lnh.Mechanism.ECDSA_SHA256)
            session.generate_key(lnh.KeyType.AES, 256, label="new")

            members.steps.start(a)  # the primary of before, with everything it had: it is told
            wait_until(lambda: is_expelled(a), "it is told", WITHIN)
            assert states(members, c) == {c.name: "read-write"}
            session.generate_key(lnh.KeyType.AES, 256, label="newer")
