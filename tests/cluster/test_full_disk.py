"""A member whose store's disk is full, as its clients have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import failed
import lnh
from lnh import admin
from lnh.console import Console
from lnh_common.messages import store
from processes import Processes, RunningMember, SmallDisk, ask
from waits import wait_until

SO, ADMIN, PO, FIRST, KRSO, KRCO = (f"the password of {who}" for who in ("so", "admin", "po", "first", "krso", "krco"))
MEGABYTES = 16
WRITES = 5000  # after so many the disk must have been full


@dataclass
class Site:
    disk: SmallDisk
    member: RunningMember
    directory: Path

    def store(self) -> store.Status:
        return ask(self.member.directory.store_for_services, store.STATUS)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with failed.directory() as root, ExitStack() as ends:
        processes = Processes()
        member = RunningMember(processes, root / "A", workers=1)
        disk = SmallDisk(member.directory.data("store"), MEGABYTES)
        ends.callback(disk.end)
        ends.enter_context(processes)
        if not disk.works:
            pytest.skip("needs root or user namespaces to mount a small file system")
        member.start(under=disk.enter())
        set_up(member, root)
        yield Site(disk, member, root / "client")


def set_up(member: RunningMember, root: Path) -> None:
    with Console(member.directory.root) as console:
        console.init_appliance("admin", ADMIN)
        console.init_hsm("A", SO, b"activation secret")
        console.install_package("cluster", SO)
        created = console.create_cluster("prod", SO, PO)
    configuration = lnh.Configuration(root / "client")
    address = f"127.0.0.1:{member.settings.base_port}"
    lnh.register(configuration, address, "web-1", "admin", lambda: ADMIN, wanted=created.fingerprint)
    with lnh.connect("prod", directory=configuration.directory) as cluster:
        with admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as session:
            session.policy(objects_per_keyring=1_000_000)
            session.create_keyrings("payments")
            session.init_krso("payments", FIRST)
        keyring = cluster.keyring("payments")
        keyring.change_password(lnh.Role.KRSO, FIRST, KRSO)
        with keyring.login(lnh.Role.KRSO, KRSO) as session:
            session.set_krco(KRCO)


def test_a_full_disk_stops_changes_with_a_clear_error_and_nothing_else(site: Site) -> None:
    with lnh.connect("prod", directory=site.directory) as cluster:
        keyring = cluster.keyring("payments")
        session = keyring.login(lnh.Role.KRCO, KRCO)
        public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="pair")
        made = [session.generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label="kept").handle for _ in range(3)]
        with site.disk.full():
            for _ in range(WRITES):
                try:
                    made.append(session.generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label="kept").handle)
                except lnh.StorageFailed as error:
                    refused = error
                    break
            else:
                raise AssertionError("the disk never filled")
            assert "full" in str(refused)
            assert "free space" in refused.advice
            assert site.store().state == "failed"

            assert public.verify(b"data", private.sign(b"data")), "cryptography goes on"
            assert set(session.find(label="kept")) == {session.get_object(handle) for handle in made}
            with pytest.raises(lnh.StorageFailed):
                private.destroy()
            with pytest.raises(lnh.StorageFailed):
                keyring.login(lnh.Role.KRCO, KRCO)
            assert public.verify(b"data", private.sign(b"data")), "a change that was refused changed nothing"
        wait_until(lambda: site.store().state == "read-write", "a store with room again")
        made.append(session.generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label="kept").handle)
        assert {one.handle for one in session.find(label="kept")} == set(made), "nothing is lost, nothing half done"
        with keyring.login(lnh.Role.KRCO, KRCO) as again:
            assert len(again.random(8)) == 8
        private.destroy()
        with pytest.raises(lnh.ObjectUnknown):
            private.sign(b"data")


def test_a_restore_that_finds_no_room_did_not_happen_and_goes_through_with_room(site: Site) -> None:
    with lnh.connect("prod", directory=site.directory, timeout=60.0) as cluster:
        keyring = cluster.keyring("payments")
        with (
            keyring.login(lnh.Role.KRCO, KRCO) as session,
            admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as administration,
        ):

            def make() -> bytes:
                return session.generate_key(lnh.KeyType.GENERIC_SECRET, 4096, label="archived").handle

            backups = administration.backups
            archived = {make() for _ in range(20)}
            name = backups.wait(backups.now()).archive
            now = archived | {make()}
            with site.disk.full():
                with suppress(lnh.StorageFailed):
                    for _ in range(WRITES):
                        now.add(make())
                with pytest.raises(lnh.StorageFailed, match="full") as refused:
                    backups.wait(backups.restore(name))
                assert "free space" in refused.value.advice
            wait_until(lambda: site.store().state == "read-write", "a store with room again")
            assert {key.handle for key in session.find(label="archived")} == now, "nothing was changed"
            backups.wait_restored(backups.restore(name))
            session.abandon()
        with keyring.login(lnh.Role.KRCO, KRCO) as session:
            assert {key.handle for key in session.find(label="archived")} == archived
