"""Whatever a program that is logged in sends to the PKCS#11 gateway is answered, and no fault of the gateway is met."""

from __future__ import annotations

import os
import random
import struct
from typing import Any

import pytest

from lnh_common import limits
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_pkcs11.calls import CALLS_BY_ID, Call
from lnh_pkcs11.fields import split
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.ways import Way
from models.gateway import SLOT, Keyrings, Program, logged_in, packed
from models.worker import KRCO

EXAMPLES = int(os.environ.get("LNH_SOAK_EXAMPLES", "1")) * 400
A = Attribute


class Sender:
    """Draws requests that are nearly right: of handles that there are, and of values of the right kinds."""

    def __init__(self, random_: random.Random, way: Way) -> None:
        self.random = random_
        self.program, self.session = logged_in(
            Keyrings(policy={"caller_ivs": True, "import": True}), way, password=KRCO
        )
        app = self.program.peer.app
        assert app is not None
        self.handles = [self.session, SLOT, 0, 1, 2**64 - 1]
        login = app.logins[SLOT].session
        for made in (
            self._made(login.generate_keypair(KeyType.EC, curve="P-256")),
            self._made(login.generate_keypair(KeyType.RSA, 2048)),
            self._made(login.generate_keypair(KeyType.ML_KEM)),
            (self._made(login.generate_key(KeyType.AES, 256)),),
            (self._made(login.generate_key(KeyType.GENERIC_SECRET, 256, derive=True)),),
        ):
            self.handles += [app.handle(app.session(self.session), each) for each in made]

    @staticmethod
    def _made(work: Any) -> Any:
        from models.gateway import done

        return done(work)

    def body(self, call: Call) -> bytes:
        letters = call.fields(own=self.program.way.own)[0]
        fields = [self.field(each, first=number == 0) for number, each in enumerate(split(letters))]
        return struct.pack(">II", call.id, len(letters)) + letters.encode() + b"".join(fields)

    def field(self, letters: str, *, first: bool) -> bytes:
        choose = self.random.choice
        if letters == "u":
            number = self.session if first and self.random.random() < 0.9 else choose([*self.handles, 3, 6])
            return self.program.encode("u", number)
        if letters in {"ay", "z", "s"}:
            value = choose([b"", KRCO.encode(), self.random.randbytes(16), bytes(32), bytes(1000)])
            return self.program.encode(letters, value)
        if letters in {"fy", "fu"}:
            return self.program.encode(letters, choose([None, 0, 1, 64, 5000]))
        if letters == "y":
            return bytes([self.random.randrange(256)])
        if letters == "aA":
            return self.program.encode(letters, self.template())
        if letters == "fA":
            return self.program.encode(letters, [(number, choose([0, 8, 4096])) for number in self.template()])
        if letters == "P":
            iv, tag = choose([b"", bytes(12), bytes(16)]), choose([b"", bytes(16)])
            return choose(
                [b"\0", b"\1" + packed(iv, choose([0, 9]), choose([0, 3]), tag), b"\2" + packed(bytes(12), bytes(16))]
            )
        mechanisms = [each for each in MECHANISM_RULES if self.program.way.passes(each)]
        return self.program.encode("M", choose([None, *mechanisms, *self.parameters()]))

    def template(self) -> dict[int, Any]:
        number = self.random.randrange
        values: dict[int, Any] = {
            A.CLASS: number(6),
            A.KEY_TYPE: self.random.choice([0, 3, 0x10, 0x1F, 0x49, 0x4A, 7]),
            A.LABEL: self.random.choice([b"ca", b"\xff", b""]),
            A.TOKEN: number(3),
            A.SIGN: number(2),
            A.VALUE: self.random.choice([b"", bytes(32)]),
            A.VALUE_LEN: self.random.choice([0, 16, 32, 2**63]),
            A.EC_PARAMS: self.random.choice([CURVES["P-256"].oid, b"\x05\x00"]),
            A.MODULUS_BITS: self.random.choice([0, 1024]),
            A.PARAMETER_SET: self.random.choice([1, 2, 99]),
            A.START_DATE: self.random.choice([b"20261124", b"2026", b""]),
            A.ALLOWED_MECHANISMS: [number(0x2000)],
            A.UNWRAP_TEMPLATE: {A.LABEL: b"x"},
            0x080: number(2),
            0x123: b"\1",
            0x7777: b"?",
        }
        return {name: values[name] for name in self.random.sample(list(values), number(6))}

    def parameters(self) -> list[tuple[int, bytes]]:
        bytes_ = self.random.randbytes
        found = [
            (Mechanism.RSA_PKCS_OAEP, packed(0x250, 2, 1, b"")),
            (Mechanism.RSA_PKCS_PSS, packed(0x250, 2, self.random.choice([32, 2**60]))),
            (Mechanism.AES_GCM, packed(bytes_(self.random.choice([0, 12, 16])), 96, b"", 128)),
            (Mechanism.AES_CBC_PAD, packed(bytes_(16))),
            (Mechanism.ECDH1_DERIVE, packed(6, b"", bytes_(65))),
            (Mechanism.HKDF_DERIVE, b"\1\1" + packed(0x250, 2, b"", 0, b"")),
            (Mechanism.SP800_108_COUNTER_KDF, packed(0x251) + struct.pack(">I", 1) + packed(1, b"") + packed(0)),
        ]
        return [(number.value, each) for number, each in found if self.program.way.passes(number)]


@pytest.mark.parametrize("way", list(Way))
def test_whatever_comes_in_is_answered(way: Way) -> None:
    seed = int(os.environ.get("LNH_SEED", "0")) or random.randrange(1 << 32)
    random_ = random.Random(seed)
    sender = Sender(random_, way)
    program: Program = sender.program
    unused = {"Finalize", "CloseSession", "CloseAllSessions", "Logout", "InitPIN", "SetPIN"}
    calls = [call for call in CALLS_BY_ID.values() if call.name not in unused]
    done = 0
    for number in range(EXAMPLES):
        call = random_.choice(calls)
        answer = program.exchange(sender.body(call))
        if answer[:4] != bytes(4):
            done += 1
            continue
        ckr = CKR(int.from_bytes(answer[9:], "big"))
        assert ckr is not CKR.GENERAL_ERROR, f"LNH_SEED={seed}, request {number}: C_{call.name} met a fault"
    assert done > EXAMPLES // 20, "most requests are of calls that may be done"
    assert limits.PKCS11_FRAME_BYTES, "bounded"
