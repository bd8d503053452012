"""How a run that failed is told: the plan, and what happened last, one readable line each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lnh_common.messages.store import Key, MemberInfo
from lnh_services.store.log import entries
from lnh_services.store.log.entries import Epoch
from simulation.plan import Plan


class Failure(AssertionError):
    """An invariant broke.

    Args:
        plan: what to run again.
        at: the virtual time.
        trace: the last that happened, one line each.
    """

    def __init__(self, plan: Plan, at: float, why: str, trace: list[str]) -> None:
        super().__init__(why)
        self.plan = plan
        self.at = at
        self.why = why
        self.trace = trace

    def told(self) -> str:
        """Everything one needs to look into it."""
        actions = [f"  {action.at:8.4f} {action.kind}{action.args}" for action in self.plan.actions]
        head = [f"seed {self.plan.seed} at {self.at:.4f}: {self.why}", f"{self.plan.profile}", "actions:"]
        return "\n".join([*head, *actions, "the last that happened:", *self.trace])


def shown(thing: Any) -> str:
    """A line that a person can read: long bytes are cut, ids stand as hexadecimal digits."""
    if isinstance(thing, entries.Entry):
        return f"<{thing.epoch}/{thing.index} {shown(thing.content())}>"
    if isinstance(thing, Epoch):
        return str(thing)
    if isinstance(thing, entries.Position):
        return f"{thing.epoch}/{thing.index}"
    if isinstance(thing, MemberInfo):
        return thing.name
    if isinstance(thing, Key):
        return thing.id.hex() or "*"
    if isinstance(thing, bytes):
        return thing.hex()[:32]
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return f"{type(thing).__name__}({', '.join(shown(each) for each in thing)})"
    if isinstance(thing, tuple | list | frozenset | set):
        return f"({', '.join(shown(each) for each in thing)})"
    if isinstance(thing, dict):
        return f"{{{', '.join(f'{shown(key)}: {shown(value)}' for key, value in thing.items())}}}"
    fields: Iterable[str] = getattr(thing, "__struct_fields__", ())
    if fields:
        default = {name: getattr(thing, name) for name in fields}
        told = [f"{name}={shown(value)}" for name, value in default.items() if value not in (None, (), False)]
        return f"{type(thing).__name__}({', '.join(told)})"
    return str(thing)
