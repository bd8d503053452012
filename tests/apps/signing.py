"""Signs through PKCS#11 until its standard input ends, checks every signature, and says how many there were."""

import hashlib
import os
import sys
import threading
from typing import Any

import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters

over = threading.Event()


def wait_for_end() -> None:
    sys.stdin.read()
    over.set()


threading.Thread(target=wait_for_end, daemon=True).start()
token = pkcs11.lib(os.environ["PKCS11_MODULE"]).get_token(token_label=os.environ["TOKEN"])
with token.open(rw=True, user_pin=os.environ["PIN"]) as session:
    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
    can = pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY
    public: Any
    private: Any  # what a key can do is mixed in when it is made
    public, private = parameters.generate_keypair(store=True, capabilities=can, label=os.environ["KEY"])
    print("signs", flush=True)
    count = 0
    while not over.is_set():
        digest = hashlib.sha256(count.to_bytes(8, "big")).digest()
        signature = private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        assert public.verify(digest, signature, mechanism=pkcs11.Mechanism.ECDSA)
        count += 1
    print(count, flush=True)
