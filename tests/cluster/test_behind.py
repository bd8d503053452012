"""A member that was stopped past its lease, and hears nobody, denies nothing that the others acknowledged meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import lnh
from lnh_cli.demo.local import Member
from lnh_common.messages import objects, store
from lnh_services.paths import MemberDirectory
from members import Members, stopped
from processes import ask
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0


def is_read_only(member: Member) -> bool:
    return ask(MemberDirectory(member.directory).store_for_services, store.STATUS).state == "read-only"


def test_a_member_that_is_behind_denies_nothing_and_another_one_is_asked(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    late, other = [member for member in members.all if member is not primary]
    password = members.place.secret("krco").read_text().strip()
    with members.sessions() as sessions, ExitStack() as opened:
        here, there = sessions[members.all.index(primary)], sessions[members.all.index(late)]
        before = here.generate_key(lnh.KeyType.AES, 256, label="before")
        gone = here.generate_key(lnh.KeyType.AES, 256, label="gone")
        roaming = opened.enter_context(lnh.connect("demo", directory=late.client, timeout=WITHIN))
        follows = opened.enter_context(roaming.keyring("payments").login(lnh.Role.KRCO, password))
        assert follows.get_key(label="before").handle == before.handle
        with ExitStack() as others:
            with stopped(late):
                made = here.generate_key(lnh.KeyType.AES, 256, label="made", timeout=WITHIN)
                gone.destroy()
                for member in (primary, other):
                    others.enter_context(stopped(member))
            wait_until(lambda: is_read_only(late), "the one that is left as read-only", WITHIN)
            use = objects.Use(handle=made.handle, mechanism=lnh.Mechanism.AES_GCM, data=b"data")
            denials: tuple[Callable[[], object], ...] = (
                lambda: there.get_object(made.handle),
                lambda: there.get_key(label="made"),
                lambda: list(there.find(label="made")),
                lambda: list(there.find(current=True)),
                lambda: there.ask(objects.ENCRYPT, use),
            )
            for deny in denials:
                with pytest.raises(lnh.MemberBehind, match="not been in step with its cluster since 20"):
                    deny()
            assert there.get_key(label="before").handle == before.handle
            found = there.find()
            assert {"before", "gone"} <= {one.label for one in found}
            assert not found.current
            assert found.whole_until is not None
            assert dt.timedelta(0) < dt.datetime.now(dt.timezone.utc) - found.whole_until < dt.timedelta(minutes=5)
            with pytest.raises(lnh.MemberReadOnly):
                there.get_key(label="gone").destroy()
            listed = json.loads(
                members.steps.run("lnh", "key", "list", "--keyring", "payments", "--json", through=late)
            )
            assert {item["current"] for item in listed} == {False}
            assert "made" not in {item["label"] for item in listed}
            (until,) = {item["whole_until"] for item in listed}
            assert dt.datetime.fromisoformat(until.replace("Z", "+00:00")) <= found.whole_until
            answers: list[object] = []
            asking = threading.Thread(target=lambda: answers.append(follows.get_key(label="made").handle))
            asking.start()
        asking.join(WITHIN)
        assert answers == [made.handle]
        members.all_read_write()
        listing = there.find()
        assert {"before", "made"} <= {one.label for one in listing}
        assert listing.current
        with pytest.raises(lnh.ObjectUnknown):
            there.get_object(gone.handle)
