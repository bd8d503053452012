"""Asks a member's HSM why no worker takes a request: it is sealed, was expelled, or has no cluster. Pure.

The HSM is asked while requests wait for a worker, and at no other time. Its word ends the requests that had come before
it was asked, and no later ones: an HSM that is activated meanwhile serves them. It is not sealed, so to the client it
is a hint like every word of a balancer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from lnh_common.errors import LnhError, MemberExpelled, NoCluster, NotActivated, Unreachable
from lnh_common.messages import hsm
from lnh_common.messages.base import Empty
from lnh_services.balancer.clients import Question

ASK_SECONDS: Final = 1.0
ASK_EVERY: Final = 0.1
NO_WORKER: Final = "no worker of this member is running"
LASTING: Final = (NotActivated, NoCluster, MemberExpelled)  # until somebody acts: to wait is no use


def follow(waits: Callable[[], bool], tell: Callable[[LnhError], None]) -> Generator[Question | float, Any, None]:
    """Yield questions to the HSM, for ever; a number is a pause in seconds. Errors are thrown in.

    Args:
        waits: whether a request waits for a worker.
        tell: called each time the HSM was asked with why no worker comes: one of `LASTING`, or Unreachable for the
            moment.
    """
    while True:
        if not waits():
            yield 0.0
            continue
        try:
            yield Question(hsm.SERVES, Empty(), ASK_SECONDS)
        except (*LASTING, Unreachable) as error:
            tell(error)
        except LnhError:  # it does not answer
            tell(Unreachable(NO_WORKER))
        else:
            tell(Unreachable("this member is starting: none of its workers is up yet"))
        yield ASK_EVERY
