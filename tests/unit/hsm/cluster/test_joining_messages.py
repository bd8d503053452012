"""What a joining HSM and the one that lets it in say to each other: whatever is changed on the way is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import errors
from lnh_common.messages.hsm import ChannelSeed, SmkGeneration
from lnh_common.versions import check_compatible
from lnh_services.hsm.cluster import join_protocol
from lnh_services.hsm.cluster.join_protocol import Identity, Invitation, Occasion
from models.console import member
from sizes import sized


def seed(number: int) -> bytes:
    return bytes([number]) * 32


DOMAIN_KEY = bytes(range(32))
OCCASION = Occasion(seed(9), Identity.of(seed(1)))
INVITATION = Invitation(
    join_protocol.INVITATION_FORMAT,
    seed(9),
    bytes(16),
    "prod",
    1_700_000_900,
    "host-a",
    7101,
    seed(8),
    Identity.of(seed(1)),
)
BUNDLE = join_protocol.Bundle(
    cluster=bytes(16),
    label="prod",
    identity=seed(4),
    smk=(SmkGeneration(generation=1, key=seed(5)),),
    channel=(ChannelSeed(epoch=3, seed=seed(6), end=1_700_090_000),),
    members=(member("a", 1, 7100), member("b", 2, 7200)),
)


def asked() -> bytes:
    return join_protocol.request(
        OCCASION, seed=seed(2), nonce=seed(3), member=member("b", 2, 7200), product="0.1.0", domain_key=DOMAIN_KEY
    )


def opened(request: bytes, reply: bytes, **changed: bytes) -> join_protocol.Bundle:
    given = {"seed": seed(2), "nonce": seed(3), "domain_key": DOMAIN_KEY, **changed}
    return join_protocol.open_reply(INVITATION, request, reply, **given)


def answered() -> tuple[bytes, bytes]:
    request = asked()
    asker = join_protocol.open_request(OCCASION, request, seed(1))
    asker.check_proof(OCCASION, DOMAIN_KEY)
    return request, join_protocol.reply(request, asker, BUNDLE, seed=seed(1), domain_key=DOMAIN_KEY)


def test_the_bundle_arrives_and_only_where_it_should() -> None:
    request, reply = answered()
    assert opened(request, reply) == BUNDLE
    for changed in ({"seed": seed(7)}, {"domain_key": seed(7)}, {"nonce": seed(7)}):
        with pytest.raises(errors.SealBroken):
            opened(request, reply, **changed)
    with pytest.raises(errors.FingerprintMismatch):
        opened(asked(), reply)  # the answer to another request of the same HSM


def test_an_answer_of_another_hsm_is_not_believed() -> None:
    request = asked()
    asker = join_protocol.open_request(OCCASION, request, seed(1))
    forged = join_protocol.reply(request, asker, BUNDLE, seed=seed(7), domain_key=DOMAIN_KEY)
    with pytest.raises(errors.FingerprintMismatch, match="SHA256:"):
        opened(request, forged)


@settings(max_examples=sized(30))
@given(st.data())
def test_what_was_changed_on_the_way_is_refused(data: st.DataObject) -> None:
    request, reply = answered()
    place = data.draw(st.integers(0, len(request) - 1))
    flipped = request[:place] + bytes([request[place] ^ data.draw(st.integers(1, 255))]) + request[place + 1 :]
    with pytest.raises(errors.ChannelInvalid):
        join_protocol.open_request(OCCASION, flipped, seed(1))
    place = data.draw(st.integers(0, len(reply) - 1))
    flipped = reply[:place] + bytes([reply[place] ^ data.draw(st.integers(1, 255))]) + reply[place + 1 :]
    with pytest.raises((errors.FingerprintMismatch, errors.SealBroken)):
        opened(request, flipped)


@settings(max_examples=sized(30))
@given(
    st.sampled_from(["identity", "nonce", "member", "product"]),
    st.binary(min_size=32, max_size=32),
)
def test_the_proof_covers_everything_the_request_says(name: str, other: bytes) -> None:
    asker = join_protocol.open_request(OCCASION, asked(), seed(1))
    changed: Any = {
        "identity": Identity.of(other), "nonce": other, "member": member("c", other[0], 7300), "product": "0.2.0",
    }[name]  # fmt: skip
    if changed == getattr(asker, name):
        return
    with pytest.raises(errors.DomainMismatch):
        dataclasses.replace(asker, **{name: changed}).check_proof(OCCASION, DOMAIN_KEY)
    with pytest.raises(errors.DomainMismatch):
        asker.check_proof(OCCASION, other)
    with pytest.raises(errors.DomainMismatch):
        asker.check_proof(Occasion(other, OCCASION.inviter), DOMAIN_KEY)


@given(st.integers(0, 3000), st.characters(codec="ascii"))
def test_a_damaged_invitation_is_refused_and_never_half_read(place: int, letter: str) -> None:
    text = INVITATION.text()
    place %= len(text)
    changed = text[:place] + letter + text[place + 1 :]
    try:
        found = Invitation.parse(changed)
    except errors.ArgumentInvalid:
        return
    assert found == INVITATION or "".join(changed.split()) != "".join(text.split())


def test_an_invitation_is_read_however_it_was_pasted() -> None:
    text = INVITATION.text()
    assert Invitation.parse("\n  " + text.replace("\n", "\r\n") + "\n") == INVITATION
    for damaged in ("", "hello", text.partition("\n")[0], text[:-40]):
        with pytest.raises(errors.ArgumentInvalid):
            Invitation.parse(damaged)


@pytest.mark.parametrize(
    ("own", "other", "fits"),
    [
        ("0.1.0", "0.1.9", True), ("0.1.0", "0.2.0", True), ("0.2.0", "0.1.0", True), ("0.1.0", "0.3.0", False),
        ("1.1.0", "0.1.0", False), ("0.1.0", "", False), ("0.1.0", "0.x", False),
    ],
)  # fmt: skip
def test_versions_one_minor_step_apart_run_together(own: str, other: str, fits: bool) -> None:
    if fits:
        check_compatible(own, other)
    else:
        with pytest.raises(errors.UnsupportedVersion):
            check_compatible(own, other)
