"""The benchmark has a row for each mechanism, and both sides of it do what they measure."""

from __future__ import annotations

from itertools import islice

import pytest
from bench import mechanisms
from bench.mechanisms import CASES, Case

from lnh_common.pkcs11.mechanisms import Mechanism
from models.object_session import WorkerSession


@pytest.fixture(scope="module")
def session() -> WorkerSession:
    return WorkerSession.open(weak_mechanisms=[each.value for each in mechanisms.WEAK], objects_per_keyring=10_000)


def test_every_mechanism_has_one_row() -> None:
    assert sorted(case.mechanism for case in CASES) == sorted(Mechanism)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mechanism.name)
def test_a_row_measures_what_is_done(session: WorkerSession, case: Case) -> None:
    mechanisms.bare(case)()
    for operation, fields in islice(mechanisms.calls(session, case), 2):
        assert session.call(operation, fields)
