"""An appliance without a cluster: its partition used by the CO with the command line, over the hsm's real processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import failed
import lnh
from commands import Forked
from lnh.console import Console
from processes import Processes, RunningMember

SO, PO, CO = (f"password of {role}" for role in ("so", "po", "co"))
ACTIVATION = b"activation secret"


@dataclass
class Appliance:
    """A running member without a cluster, with one partition; `run` is `lnh` as its CO."""

    member: RunningMember
    place: Path

    def run(self, *arguments: str, status: int = 0) -> str:
        environment = {
            **os.environ, "LNH_MEMBER_DIR": str(self.member.directory.root), "LNH_CO_PASSWORD_FILE": str(self.place / "CO"),
        }  # fmt: skip
        done = Forked(("lnh", *arguments), environment, self.place).wait()
        assert done.code == status, done.err
        assert "Traceback" not in done.err
        return done.out or done.err

    def console(self) -> Console:
        return Console(self.member.directory.root)


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    with failed.directory() as root, Processes() as processes:
        member = RunningMember(processes, root / "A", workers=1)
        made = Appliance(member, root)
        (made.place / "CO").write_text(CO)
        (made.place / "data").write_bytes(b"data" * 1000)
        member.start()
        with made.console() as console:
            console.init_hsm("A", SO, ACTIVATION)
            console.create_partition("own", 0, SO, PO, CO)
        yield made


def test_a_co_uses_its_partition_by_command_until_the_cluster_package_ends_it(appliance: Appliance) -> None:
    made = json.loads(appliance.run("key", "generate", "ca", "--partition", "own", "--curve", "P-256", "--json"))
    assert [one["class"] for one in made] == ["PUBLIC_KEY", "PRIVATE_KEY"]
    appliance.run("sign", "ca", "data", "--partition", "own", "--der", "-o", "sig")
    appliance.run("key", "export", "ca", "--partition", "own", "-o", "pem")
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "pem", "-signature", "sig", "data"],
        cwd=appliance.place,
        check=True,
        capture_output=True,
        timeout=20,
    )
    verify = ("verify", "ca", "--partition", "own", "--der", "--signature", "sig")
    assert appliance.run(*verify, "data") == "valid\n"
    assert appliance.run(*verify, "CO", status=1).startswith("refused: ")
    refused = appliance.run("key", "generate", "bulk", "--partition", "own", "--total", "50", status=1)
    assert "100 more objects: partition own holds 2, and 100 at most" in refused
    appliance.run("key", "generate", "aes", "--partition", "own", "--type", "AES")
    appliance.run("encrypt", "aes", "data", "--partition", "own", "-o", "encrypted")
    appliance.run("decrypt", "aes", "encrypted", "--partition", "own", "-o", "decrypted")
    assert (appliance.place / "decrypted").read_bytes() == (appliance.place / "data").read_bytes()
    shown = json.loads(appliance.run("partition", "show", "own", "--json"))
    assert (shown["objects"], shown["limit"], shown["accessible"]) == (3, 100, True)
    assert json.loads(appliance.run("key", "show", "aes", "--partition", "own", "--json"))["label"] == "aes"
    appliance.run("key", "copy", "aes", "copied", "--partition", "own")
    appliance.run("key", "delete", "aes", "--partition", "own", "--yes")
    listed = json.loads(appliance.run("key", "list", "--partition", "own", "--json"))
    assert [one["label"] for one in listed] == ["ca", "ca", "copied"]
    with appliance.console() as console:
        console.create_partition("first", 1, SO, PO, CO)
        refused = appliance.run("package", "install", "cluster", "--yes", status=1)  # no password is asked for
        assert "V1 partitions (first)" in refused
        refused = appliance.run("partition", "create", "own", status=1)
        assert "there is a partition own" in refused
        console.delete_partition("first", SO)
        console.install_package("cluster", SO)
    refused = appliance.run("key", "list", "--partition", "own", status=1)
    assert "refused: the cluster package has disabled" in refused
    assert "re-imaging" in refused
    (view,) = json.loads(appliance.run("partition", "list", "--json"))
    assert (view["objects"], view["accessible"]) == (3, False)


def test_every_operation_of_the_sdk_works_in_a_partition(appliance: Appliance) -> None:
    with appliance.console() as console:
        session = console.partition_session("own", CO)
        public, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS, label="sdk")
        assert [public.verify(b"a", one) for one in private.sign_many([b"a", b"b"])] == [True, False]
        assert len(list(private.sign_each([b"a", b"b"]))) == 2
        private.set_attributes(label="renamed")
        private.refresh()
        assert session.get_key(label="renamed") == private
        private.destroy()
        with pytest.raises(lnh.ObjectUnknown):
            private.sign(b"a")
        with pytest.raises(lnh.NotPossible, match="no session stays open"):
            session.generate_key(lnh.KeyType.AES, token=False)
        wrapping = session.generate_key(lnh.KeyType.AES, wrap=True, unwrap=True)
        app = session.generate_key(lnh.KeyType.AES, extractable=True)
        back = wrapping.unwrap(wrapping.wrap(app), lnh.ObjectClass.SECRET_KEY, lnh.KeyType.AES)
        assert isinstance(back, lnh.SecretKey)
        assert back.decrypt(app.encrypt(b"data")) == b"data"
        with pytest.raises(lnh.PasswordIncorrect):
            console.partition_session("own", "wrong password").get_object(public.handle)
        public.destroy()
