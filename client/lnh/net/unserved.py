"""Words the answers of members that serve nobody for their users: what each member is, and what to do. Pure.

A member that is sealed, was expelled or has no cluster says so without a seal, since it can make none. So its word is a
hint: another member is asked, and only where every member that is known says it is the user told, as what was heard.
Members that are not reached may be on their way back, and are waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lnh_common.errors import AnswerUnproven, LnhError, MemberExpelled, NoCluster, NotActivated

_ANOTHER: Final = "use another member of the cluster: LNHClientRegistration --member HOST:PORT"

# What the users of such a member can do: the errors' own advice is for its operators.
_ADVICE: Final[dict[type[LnhError], str]] = {
    NotActivated: NotActivated.advice,
    NoCluster: _ANOTHER,
    MemberExpelled: f"{_ANOTHER}; for the member to be one again: lnh cluster join",
}
UNSERVED: Final[tuple[type[LnhError], ...]] = tuple(_ADVICE)


def unproven(heard: LnhError, said: Mapping[str, LnhError]) -> AnswerUnproven:
    """Make the error of a request that wants a sealed answer, where none came back.

    Args:
        heard: the last hint.
        said: the last answer of each member that serves nobody, by its address.
    """
    words = [f"heard {type(each).__name__}: {each} ({who})" for who, each in _together(said)]
    told = list(said.values())
    if heard not in told:
        words.append(f"heard {type(heard).__name__}: {heard}")
        told.append(heard)
    advice = f"if that is true, {_advice(told)}; if it is not, look at the balancer and the network"
    return AnswerUnproven(f"nothing sealed came back; {'; '.join(words)}", {"heard": heard.code, "advice": advice})


def unserved(heard: LnhError, said: Mapping[str, LnhError], *, is_sealed: bool) -> LnhError:
    """Make the error of a request that no member served.

    Args:
        heard: the last hint.
        said: the last answer of each member that serves nobody, by its address; at least one.
        is_sealed: whether only a sealed answer is believed; else the error is that of the first member asked.
    """
    if isinstance(heard, AnswerUnproven):
        return heard
    if is_sealed:
        return unproven(heard, said)
    told = list(said.values())
    words = [f"{who}: {each}" for who, each in _together(said)]
    if heard not in told:
        words.append(str(heard))
        told.append(heard)
    return type(told[0])("; ".join(words), {"advice": _advice(told)})


def _together(said: Mapping[str, LnhError]) -> list[tuple[str, LnhError]]:
    """Group the errors, each once, with the addresses of all members that said the same."""
    alike: dict[tuple[type[LnhError], str], list[str]] = {}
    for who, each in said.items():
        alike.setdefault((type(each), str(each)), []).append(who)
    return [(", ".join(all_who), said[all_who[0]]) for all_who in alike.values()]


def _advice(errors: Iterable[LnhError]) -> str:
    return "; or ".join(dict.fromkeys(_ADVICE.get(type(each), each.advice) for each in errors))
