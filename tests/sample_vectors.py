"""Writes tests/data/vectors: a fixed sample of Wycheproof's and NIST's vectors, of which tests/data/vectors/README.md tells.

    python tests/sample_vectors.py WYCHEPROOF/testvectors_v1 CRYPTOGRAPHY_VECTORS

The first is a checkout of github.com/C2SP/wycheproof, the second the installed package `cryptography-vectors` (50.0.2). The whole of both is 200 MB, most of it for what the product does not do.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
OUT = Path(__file__).parent / "data" / "vectors"

# Wycheproof: for each file, the cases kept of each pair (result, flags), and what a group must be to fit the product.
_ANY: Callable[[Row], bool] = lambda _: True  # noqa: E731
_AES: Callable[[Row], bool] = lambda group: group["keySize"] in (128, 192, 256)  # noqa: E731
_AEAD: Callable[[Row], bool] = lambda group: group["ivSize"] == 96 and group["tagSize"] == 128  # noqa: E731
_RSA: Callable[[Row], bool] = lambda group: (  # noqa: E731
    group["keySize"] >= 2048 and group["sha"] == group["mgfSha"] and group["sha"] in ("SHA-256", "SHA-384", "SHA-512")
)
WYCHEPROOF: dict[str, tuple[int, Callable[[Row], bool]]] = {
    "aes_gcm": (3, _AEAD),
    "chacha20_poly1305": (3, _AEAD),
    "aes_cbc_pkcs5": (3, _ANY),
    "aes_cmac": (3, lambda group: _AES(group) and group["tagSize"] == 128),
    "aes_wrap": (3, _ANY),
    "aes_kwp": (3, _ANY),
    "hmac_sha256": (3, _ANY),
    "hmac_sha384": (3, _ANY),
    "hmac_sha512": (3, _ANY),
    "hkdf_sha256": (2, _ANY),
    "hkdf_sha384": (2, _ANY),
    "hkdf_sha512": (2, _ANY),
    "ed25519": (2, _ANY),
    "ed448": (2, _ANY),
    "rsa_signature_2048_sha256": (2, _ANY),
    "rsa_signature_2048_sha384": (2, _ANY),
    "rsa_signature_2048_sha512": (2, _ANY),
    "rsa_pss_2048_sha256_mgf1_0": (2, _RSA),
    "rsa_pss_2048_sha256_mgf1_32": (2, _RSA),
    "rsa_pss_2048_sha384_mgf1_48": (2, _RSA),
    "rsa_pss_4096_sha512_mgf1_32": (2, _RSA),
    "rsa_pss_4096_sha512_mgf1_64": (2, _RSA),
    "rsa_pkcs1_2048": (2, _ANY),
    **{
        f"rsa_oaep_2048_sha{bits}_mgf1sha{mask}": (2, _ANY)
        for bits, mask in ((1, 1), (256, 256), (256, 1), (384, 384), (384, 1), (512, 512), (512, 1))
    },
    **{
        f"ecdsa_{curve}_{hash_}_p1363": (2, _ANY)
        for curve, hash_ in (
            ("secp256r1", "sha256"),
            ("secp256r1", "sha512"),
            ("secp384r1", "sha384"),
            ("secp521r1", "sha512"),
            ("secp256k1", "sha256"),
            ("brainpoolP256r1", "sha256"),
            ("brainpoolP384r1", "sha384"),
            ("brainpoolP512r1", "sha512"),
        )
    },
    "ecdh_secp256r1_ecpoint": (2, _ANY),
    "ecdh_secp384r1_ecpoint": (2, _ANY),
    "ecdh_secp521r1_ecpoint": (2, _ANY),
    "ecdh_secp256k1": (2, _ANY),
    "ecdh_brainpoolP256r1": (2, _ANY),
    "ecdh_brainpoolP384r1": (2, _ANY),
    "ecdh_brainpoolP512r1": (2, _ANY),
    "x25519": (3, _ANY),
    "x448": (3, _ANY),
    "mldsa_44_verify": (1, lambda group: "publicKeyDer" in group),
    "mldsa_65_verify": (1, lambda group: "publicKeyDer" in group),
    "mldsa_87_verify": (1, lambda group: "publicKeyDer" in group),
    "mlkem_768": (2, lambda group: group["type"] == "MLKEMTest"),
    "mlkem_1024": (2, lambda group: group["type"] == "MLKEMTest"),
}
KEPT_OF_GROUP = ("privateKeyPkcs8", "publicKeyDer", "sha", "mgfSha", "sLen", "tagSize", "curve")
LEFT_OUT = ("tcId", "comment", "mu", "ek")
LONGEST = 4000  # hexadecimal digits of a message

# NIST: of each section (the lines in brackets before it) of each file so many cases, the first of them.
NIST: dict[str, tuple[int, tuple[str, ...]]] = {
    "aes_ecb": (2, tuple(f"ciphers/AES/ECB/ECB{kind}{bits}.rsp" for kind in ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT") for bits in (128, 192, 256))),
    "aes_cbc": (2, tuple(f"ciphers/AES/CBC/CBC{kind}{bits}.rsp" for kind in ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT") for bits in (128, 192, 256))),
    "aes_ctr": (9, tuple(f"ciphers/AES/CTR/aes-{bits}-ctr.txt" for bits in (128, 192, 256))),
    **{
        f"sha2_{bits}": (8, (f"hashes/SHA2/SHA{bits}ShortMsg.rsp", f"hashes/SHA2/SHA{bits}LongMsg.rsp"))
        for bits in (224, 256, 384, 512)
    },
    **{
        f"sha3_{bits}": (8, (f"hashes/SHA3/SHA3_{bits}ShortMsg.rsp", f"hashes/SHA3/SHA3_{bits}LongMsg.rsp"))
        for bits in (224, 256, 384, 512)
    },
    "x963": (2, ("KDF/ansx963_2001.txt",)),
    "sp800_108": (2, ("KDF/nist-800-108-KBKDF-CTR.txt",)),
}  # fmt: skip


# Of NIST's sections those that the product has: SHA-2 of 256 bits at least, a counter of 32 bits before the fixed input.
LEFT_OUT_SECTIONS = re.compile(r"SHA-?1\b|SHA-?224|TDES|(AFTER|MIDDLE)_FIXED|\"(8|16|24)_BITS")
# What comes before the point in an SPKI of the curve, in bytes from the end: 04, x and y.
POINTS = {"secp256k1": 65, "brainpoolP256r1": 65, "brainpoolP384r1": 97, "brainpoolP512r1": 129}


def wycheproof(source: Path, name: str) -> list[Row]:
    """Sample one file: groups, each with what it keeps, and cases."""
    most, fits = WYCHEPROOF[name]
    seen: Counter[tuple[str, ...]] = Counter()
    groups = []
    for group in json.loads((source / f"{name}_test.json").read_text())["testGroups"]:
        tests = []
        for test in _bare(group) if fits(group) else ():
            kind = (
                test["result"],
                str(group.get("keySize", "")),
                str(group.get("tagSize", "")),
                *sorted(test["flags"]),
            )
            if seen[kind] < most and len(test.get("msg", "")) <= LONGEST:
                seen[kind] += 1
                tests.append({key: value for key, value in test.items() if key not in LEFT_OUT})
        if tests:
            groups.append({key: group[key] for key in KEPT_OF_GROUP if key in group} | {"tests": tests})
    return groups


def _bare(group: Row) -> list[Row]:
    """Leave the cases that the product could be asked: public keys as points, and seeds of the right length."""
    tests: list[Row] = [test for test in group["tests"] if len(test.get("seed", "")) in (0, 128)]
    if group.get("encoding") != "asn":
        return tests
    digits = 2 * POINTS[group["curve"]]
    head = tests[0]["public"][:-digits]
    named = [
        test
        for test in tests
        if len(test["public"]) == len(head) + digits
        and test["public"].startswith(head)
        and "InvalidAsn" not in test["flags"]
    ]
    return [test | {"public": test["public"][-digits:]} for test in named]


def nist(source: Path, name: str) -> list[Row]:
    """Sample the files of one name, each case with its section."""
    most, files = NIST[name]
    rows: list[Row] = []
    for file in files:
        section: dict[str, str] = {}
        case: Row = {}
        taken: Counter[str] = Counter()
        was_section = False
        for line in [*(source / file).read_text().splitlines(), "[END]"]:
            if found := re.fullmatch(r"\[([^=\]]+?)(?:\s*=\s*([^\]]+))?\]", line.strip()):
                if case:
                    _keep(rows, case, section, taken, most)
                    case = {}
                if not was_section and found[2] is None:
                    section = {}
                section[found[1] if found[2] else "section"] = found[2] or found[1]
                was_section = True
            elif found := re.fullmatch(r"([A-Za-z_]+) = ?(.*)|([A-Z]+)=(\d+)", line):
                key = (found[1] or found[3]).upper()
                if key in ("COUNT", "LEN") and case:
                    _keep(rows, case, section, taken, most)
                    case = {}
                case[key] = found[2] if found[1] else found[4]
                was_section = False
    return rows


def _keep(rows: list[Row], case: Row, section: dict[str, str], taken: Counter[str], most: int) -> None:
    kind = json.dumps(section)
    if LEFT_OUT_SECTIONS.search(kind):
        return
    if taken[kind] < most and all(len(value) <= 4 * LONGEST for value in case.values()):
        taken[kind] += 1
        rows.append({"section": dict(section), **case})


def main() -> None:
    """Write every file of the sample."""
    sources = Path(sys.argv[1]), Path(sys.argv[2])
    OUT.mkdir(exist_ok=True)
    for names, sample, source in ((WYCHEPROOF, wycheproof, sources[0]), (NIST, nist, sources[1])):
        for name in names:
            rows = sample(source, name)
            lines = ",\n".join(json.dumps(row, separators=(",", ":"), sort_keys=True) for row in rows)
            (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
