"""What runs in the client's container: operations one after another through the SDK until standard input ends.

Its arguments: `sign` or `create`. It says `ready` after the first that succeeded, and in the end, as JSON, how many ended
how, the longest time between two that succeeded, and the labels of the keys it made.
"""

import json
import os
import pathlib
import sys
import threading
import time
from collections import Counter

import lnh

ended = threading.Event()
SECONDS = 100.0  # after which it ends whatever standard input says


def wait_for_the_end() -> None:
    sys.stdin.read()
    ended.set()


kind = sys.argv[1]
threading.Thread(target=wait_for_the_end, daemon=True).start()
until = time.monotonic() + SECONDS
password = pathlib.Path(os.environ["LNH_KRCO_PASSWORD_FILE"]).read_text().strip()
outcomes: Counter[str] = Counter()
made: list[str] = []
longest, last = 0.0, 0.0

with lnh.connect("demo") as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, password) as session:
    key = session.get_key(label="p256", object_class=lnh.ObjectClass.PRIVATE_KEY)
    assert isinstance(key, lnh.PrivateKey)
    number = 0
    while not ended.is_set() and time.monotonic() < until:
        number += 1
        try:
            if kind == "sign":
                key.sign(b"data", mechanism=lnh.Mechanism.ECDSA_SHA256)
            else:
                label = f"made-{os.getpid()}-{number}"
                session.generate_key(lnh.KeyType.AES, bits=256, label=label)
                made.append(label)
        except lnh.errors.LnhError as error:
            outcomes[type(error).__name__] += 1
            continue
        now = time.monotonic()
        if last:
            longest = max(longest, now - last)
        else:
            print("ready", flush=True)
        last = now
        outcomes["done"] += 1
print(json.dumps({"outcomes": outcomes, "longest": round(longest, 3), "made": made}))
