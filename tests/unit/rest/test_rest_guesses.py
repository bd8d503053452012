"""Wrong passwords through the service: no stranger comes near the HSM's limit, and who knows the password gets in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import Busy, LnhError, PasswordIncorrect, PasswordMustChange
from lnh_rest.guesses import Guesses
from lnh_rest.problems import Refused
from sizes import sized

NOW = 1_796_000_000.0
HOLDER = "krco of payments"


def tried(guesses: Guesses, now: float, address: str, error: LnhError | None = None, *holders: str) -> bool:
    """Whether an attempt that ends so is let through."""
    refused: list[LnhError | Refused] = []
    try:
        with guesses.attempt(now, address, holders or (HOLDER,)):
            if error is not None:
                raise error
    except (Refused, LnhError) as raised:
        refused.append(raised)
    if not refused or refused == [error]:
        return True
    (told,) = refused
    assert isinstance(told, Refused)
    assert told.status == 429
    assert 1 <= int(told.headers["Retry-After"]) <= limits.LOCK_SECONDS
    return False


def wrong() -> LnhError:
    return PasswordIncorrect("wrong name or password")


def test_an_address_has_a_few_guesses_at_one_holder_and_others_their_own() -> None:
    guesses = Guesses()
    assert [tried(guesses, NOW, "192.0.2.1", wrong()) for _ in range(6)] == [True] * 4 + [False] * 2
    assert not tried(guesses, NOW, "192.0.2.1"), "a right one neither: it would tell that it was right"
    assert tried(guesses, NOW, "192.0.2.1", None, "another holder")
    assert tried(guesses, NOW, "192.0.2.2")


def test_at_the_end_only_who_logged_in_lately_is_let_through() -> None:
    guesses = Guesses()
    assert tried(guesses, NOW, "192.0.2.9")
    for number in range(20):
        tried(guesses, NOW + 1, f"192.0.2.{number // 4 + 10}", wrong())
    assert not tried(guesses, NOW + 2, "192.0.2.100")
    assert tried(guesses, NOW + 2, "192.0.2.9")
    assert tried(guesses, NOW + 3, "192.0.2.100", wrong()), "the HSM forgave all with the right one"


def test_all_is_forgotten_once_there_was_none_for_as_long_as_a_lock_lasts() -> None:
    guesses = Guesses()
    for number in range(8):
        assert tried(guesses, NOW + number * 60, f"192.0.2.{number}", wrong())
    last = NOW + 7 * 60
    assert not tried(guesses, last + limits.LOCK_SECONDS - 1, "192.0.2.200", wrong())
    assert tried(guesses, last + limits.LOCK_SECONDS, "192.0.2.200", wrong())


@pytest.mark.parametrize("error", [Busy("later"), PasswordMustChange("a first one")])
def test_what_is_no_wrong_password_counts_for_none(error: LnhError) -> None:
    guesses = Guesses()
    assert all(tried(guesses, NOW, "192.0.2.1", error) for _ in range(50))


def test_of_two_credentials_in_one_login_each_counts_for_its_holder() -> None:
    guesses = Guesses()
    for number in range(4):
        assert tried(guesses, NOW, "192.0.2.1", wrong(), f"made-up {number}", "PO")
    assert not tried(guesses, NOW, "192.0.2.1", wrong(), "made-up 5", "PO")


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["wrong", "right", "busy"]), st.integers(0, 1200)), max_size=80
    )
)
@settings(max_examples=sized(200))
def test_strangers_never_use_up_what_the_hsm_lets_a_client_try(steps: list[tuple[int, str, int]]) -> None:
    """The HSM's own count, kept beside: wrong ones within a lock's time of each other, until a right one."""
    guesses = Guesses()
    now, counted, last = NOW, 0, 0.0
    for number, how, later in steps:
        now += later
        if now - last >= limits.LOCK_SECONDS:
            counted = 0
        # Nobody here ever knew the password but address 0.
        how = "wrong" if how == "right" and number else how
        error = {"wrong": wrong(), "busy": Busy("later"), "right": None}[how]
        let_through = tried(guesses, now, f"192.0.2.{number}", error)
        if let_through and how == "wrong":
            counted, last = counted + 1, now
        if let_through and how == "right":
            counted = 0
        assert counted <= limits.REST_FAILURES or not (let_through and number), "a stranger used up what is left"
    assert limits.REST_FAILURES < limits.FAILURES_BEFORE_LOCK


def test_of_attempts_that_were_never_compared_nothing_is_kept() -> None:
    guesses = Guesses()
    for number in range(100):
        assert tried(guesses, NOW, f"2001:db8:{number:x}::1", Busy("too many logins"))
    (holder,) = guesses._holders.values()
    assert not holder.failures
    assert holder.total == 0
