"""The program that the benchmark signs with does what it says, here on a token of SoftHSM2."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import pkcs11, references

from lnh_pkcs11.module import build

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no C compiler on this machine"),
    pytest.mark.skipif(not references.SOFTHSM.exists(), reason="no SoftHSM2 on this machine"),
]


def test_the_driver_signs_with_each_key_by_one_thread_and_by_many(tmp_path: Path) -> None:
    program = pkcs11.compiled(tmp_path)
    with references.softhsm_token() as token:
        environment = {**token, "PIN": references.PIN}
        with pkcs11.driver(program, references.SOFTHSM, references.TOKEN, environment) as made:
            made.ask("make 1")
            for key, threads, _ in pkcs11._ROWS:
                assert made.sign(key, threads, 0.05) > 0
            assert len(made.used) == len(pkcs11._ROWS)
            assert all(used > 1 for used in made.used), "microseconds of this process's processor"
        with pkcs11.driver(program, references.SOFTHSM, references.TOKEN, environment) as fresh:
            whole, login = fresh.ask("first")
            assert whole > login > 0
