"""Which tests go to which process under `pytest -n`, and in which order they begin.

`--dist loadgroup` would do most of it, but pytest-xdist 3.8 does not find its groups under pytest 9.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_THREE_MEMBERS: Final = "three members"

# Files whose tests share a running cluster, which is made once if they go to one process. Those of three members are all
# one group, in this order: two such clusters at once leave each other no processor.
GROUPS: Final = {
    "test_behind.py": _THREE_MEMBERS,
    "test_failover.py": _THREE_MEMBERS,
    "test_backup_members.py": _THREE_MEMBERS,
    "test_members_in_step.py": _THREE_MEMBERS,
    "test_balancing.py": _THREE_MEMBERS,
    "test_damaged_member.py": _THREE_MEMBERS,
    "test_drill.py": _THREE_MEMBERS,
    "test_versions.py": _THREE_MEMBERS,
    "test_forced_removal.py": _THREE_MEMBERS,
    "test_kms.py": _THREE_MEMBERS,
    "test_demo.py": _THREE_MEMBERS,
    "test_rest.py": "test_client_edges.py",  # whose member it goes to
    "test_rest_administration.py": "test_client_edges.py",
    "test_rest_clients.py": "test_client_edges.py",
    **{
        name: name
        for name in (
            "test_spine.py", "test_backup.py", "test_client.py", "test_client_edges.py", "test_balancers.py",
            "test_wrong_input.py", "test_full_disk.py", "test_supervisor.py", "test_etcd_client.py",
        )
    },
}  # fmt: skip
# Where a file goes to one process, too: what its tests share is made once, and there are hundreds of parts, not thousands.
QUICK: Final = ("/unit/", "/property/", "/interop/", "/simulation/test_balancing.py")

# What begins first, so that the processes end at about the same time.
LONGEST: Final = (
    *(name for name, group in GROUPS.items() if group == _THREE_MEMBERS),
    "test_joining_members.py", "test_spine.py", "test_simulation.py", "test_mutations.py",
    "test_store_members.py", "test_backup.py", "test_client.py", "test_wrong_input.py", "test_balancers.py", "test_full_disk.py",
    "test_store_versions.py", "test_store_crash.py", "test_bootstrap.py", "test_hsm_core.py", "test_balancer.py",
    "test_client_edges.py", "test_etcd_client.py", "test_rest.py", "test_rest_administration.py", "test_rest_clients.py", "test_supervisor.py", "test_client_failover.py", "test_search.py", "test_cli.py",
    "test_templates.py", "test_wire_and_bus.py",
)  # fmt: skip
_RANKS: Final = {name: rank for rank, name in enumerate(LONGEST)}


def rank(item: pytest.Item) -> int:
    """By which tests are sorted; equals stay in the order that pytest-randomly gave them."""
    return _RANKS.get(item.path.name, len(_RANKS))


class Distribution(LoadScopeScheduling):  # type: ignore[misc]  # of a library without types
    """One test after the other to whoever is free; what is quick, by file; of the files in `GROUPS`, a group to one process."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # they are in order

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if any(room in file for room in QUICK):
            return file
        return GROUPS.get(file.rpartition("/")[2], nodeid)
