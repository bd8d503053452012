"""Keys under sequences of every call, against a plain model of what may become of them.

The model knows nothing of templates and mechanisms. It knows what is fixed, what changes one way only, whose value may be
read, and whose sessions and objects are over; whatever a worker answers must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.messages import objects, session
from lnh_common.messages.objects import ObjectView
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import Attribute, KeyType
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import HkdfParameters
from models.keyring import Keyring, carried
from sizes import sized

A = Attribute
M = Mechanism
K = KeyType

# What the HSM alone says, and what never changes.
FIXED: Final = (
    A.CLASS, A.KEY_TYPE, A.TOKEN, A.UNIQUE_ID, A.LOCAL, A.KEY_GEN_MECHANISM, A.ALWAYS_SENSITIVE, A.NEVER_EXTRACTABLE,
    A.CHECK_VALUE, A.VALUE_LEN, A.WRAP_TEMPLATE, A.UNWRAP_TEMPLATE, A.DERIVE_TEMPLATE, A.PUBLIC_KEY_INFO,
)  # fmt: skip
ONLY_TRUE: Final = (A.SENSITIVE, A.WRAP_WITH_TRUSTED)
USES: Final = (A.ENCRYPT, A.DECRYPT, A.SIGN, A.VERIFY, A.WRAP, A.UNWRAP, A.DERIVE)
ONLY_FALSE: Final = (A.EXTRACTABLE, A.COPYABLE, A.MODIFIABLE, A.DESTROYABLE, *USES)

FLAGS: Final = (
    "SENSITIVE", "EXTRACTABLE", "COPYABLE", "MODIFIABLE", "DESTROYABLE", "WRAP_WITH_TRUSTED", "TRUSTED", "ENCRYPT",
    "DECRYPT", "SIGN", "WRAP", "UNWRAP", "DERIVE", "TOKEN", "LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE",
)  # fmt: skip
LIKELY: Final[tuple[dict[str, Any], ...]] = (
    {}, {"EXTRACTABLE": True}, {"WRAP": True, "UNWRAP": True}, {"WRAP": True, "UNWRAP": True, "EXTRACTABLE": True},
    {"WRAP": True, "UNWRAP": True, "UNWRAP_TEMPLATE": {"DERIVE": True}}, {"DERIVE": True},
    {"DERIVE": True, "EXTRACTABLE": True}, {"SENSITIVE": False, "EXTRACTABLE": True}, {"SENSITIVE": False},
    {"WRAP": True, "UNWRAP": True, "SENSITIVE": False},
    {"SIGN": True}, {"DECRYPT": True, "ALLOWED_MECHANISMS": [M.AES_CBC]},
)  # fmt: skip
said = st.one_of(
    st.sampled_from(LIKELY),
    st.dictionaries(st.sampled_from(FLAGS), st.booleans(), max_size=4),
    st.builds(
        lambda likely, more: likely | more,
        st.sampled_from(LIKELY),
        st.dictionaries(st.sampled_from(FLAGS), st.booleans(), max_size=2),
    ),
)
types = st.sampled_from([K.AES, K.AES, K.AES, K.GENERIC_SECRET, K.CHACHA20])
plain = st.sampled_from([{}, {}, {"TOKEN": False}])


@dataclass(eq=False)
class Known:
    """What the model knows of one object.

    Args:
        view: as it was last seen.
        value: of a key that came in.
        login: in which the object was made, if it lives there.
        gone: whether it was destroyed.
    """

    view: ObjectView
    value: bytes | None = None
    login: int = 0
    gone: bool = False

    def __getitem__(self, name: Attribute) -> Any:
        return self.view.attributes.get(name)

    @property
    def is_readable(self) -> bool:
        return self[A.SENSITIVE] is False and self[A.EXTRACTABLE] is True


@dataclass
class Wrapped:
    """What was wrapped, and by which key."""

    data: bytes
    by: Known


class Keys(RuleBasedStateMachine):
    known = Bundle("known")
    wrapped = Bundle("wrapped")

    @initialize(target=known, key_uses=st.sampled_from(["separated", "compatible"]))
    def begin(self, key_uses: str) -> Any:
        self.keyring = Keyring.made(policy={"import": True, "key_uses": key_uses})
        self.role, self.login = Role.KRCO, 1
        self.all: list[Known] = []
        self.pair = self.keyring.pair(K.ML_KEM, {"PARAMETER_SET": 2}, {"EXTRACTABLE": True})
        useful: tuple[dict[str, Any], ...] = (
            {"WRAP": True, "UNWRAP": True},
            {"EXTRACTABLE": True},
            {"DERIVE": True},
        )
        return multiple(*(self._new(self.keyring.secret(**said)) for said in useful))

    # --- what is made

    def _new(self, view: ObjectView, value: bytes | None = None) -> Known:
        made = Known(view, value, self.login if view.attributes[A.TOKEN] is False else 0)
        assert view.attributes[A.UNIQUE_ID] == view.handle.hex()
        assert self.role is Role.KRSO or view.attributes.get(A.TRUSTED) is not True
        self.all.append(made)
        return made

    def _came_out(self, view: ObjectView, base: Known) -> Known:
        made = self._new(view)
        assert made[A.SENSITIVE] is True
        assert made[A.LOCAL] is False
        assert made[A.KEY_GEN_MECHANISM] is None
        if made[A.EXTRACTABLE] is True:
            assert base[A.EXTRACTABLE] is True
        return made

    @rule(target=known, key_type=types, said=said)
    def generate(self, key_type: KeyType, said: dict[str, Any]) -> Any:
        try:
            view = self.keyring.secret(key_type, **said)
        except LnhError:
            return multiple()
        made = self._new(view)
        assert made[A.LOCAL] is True
        assert made[A.ALWAYS_SENSITIVE] is made[A.SENSITIVE]
        assert made[A.NEVER_EXTRACTABLE] is (not made[A.EXTRACTABLE])
        return made

    @rule(target=known, key_type=types, said=said, value=st.sampled_from([bytes(32), bytes(range(32))]))
    def bring_in(self, key_type: KeyType, said: dict[str, Any], value: bytes) -> Any:
        try:
            view = self.keyring.create(value, KEY_TYPE=key_type, **said)
        except LnhError:
            return multiple()
        made = self._new(view, value)
        assert (made[A.LOCAL], made[A.ALWAYS_SENSITIVE], made[A.NEVER_EXTRACTABLE]) == (False, False, False)
        return made

    @rule(target=known, one=known, said=st.one_of(st.just({}), said))
    def copy(self, one: Known, said: dict[str, Any]) -> Any:
        try:
            view = self.keyring.copy(one.view, **said)
        except LnhError:
            assert said or one.gone or one.login or one[A.COPYABLE] is False
            return multiple()
        assert not one.gone
        assert one[A.COPYABLE] is True
        assert not one.login, "an object of a session is not made permanent"
        made = self._new(view, one.value)
        for name in FIXED:
            assert name is A.UNIQUE_ID or made[name] == one[name]
        self._one_way(one.view, view)
        assert made[A.TRUSTED] is (said.get("TRUSTED") is True)
        assert made[A.MODIFIABLE] is (one[A.MODIFIABLE] and not one[A.TRUSTED] and said.get("MODIFIABLE") is not False)
        return made

    @rule(target=wrapped, by=known, one=known)
    def wrap_with_any(self, by: Known, one: Known) -> Any:
        return self.wrap(by, one)

    def wrap(self, by: Known, one: Known) -> Any:
        try:
            data = self.keyring.wrap(by.view, one.view)
        except LnhError:
            return multiple()
        assert not by.gone
        assert not one.gone
        assert by[A.WRAP] is True
        assert one[A.EXTRACTABLE] is True
        assert one[A.NEVER_EXTRACTABLE] is False
        assert by[A.TRUSTED] is True or (by[A.LOCAL] is True and by[A.ALWAYS_SENSITIVE] is True)
        assert one[A.WRAP_WITH_TRUSTED] is not True or by[A.TRUSTED] is True
        assert by[A.VALUE_LEN] >= min(one[A.VALUE_LEN], 32)
        return Wrapped(data, by)

    @rule(target=wrapped, one=known)
    def wrap_with_the_first(self, one: Known) -> Any:
        return self.wrap(self.all[0], one)

    @rule(target=known, one=wrapped, said=st.one_of(plain, said))
    def unwrap_with_the_same(self, one: Wrapped, said: dict[str, Any]) -> Any:
        return self.unwrap(one.by, one, K.AES, said)

    @rule(target=known, by=known, one=wrapped, key_type=types, said=st.one_of(plain, said))
    def unwrap_with_any(self, by: Known, one: Wrapped, key_type: KeyType, said: dict[str, Any]) -> Any:
        return self.unwrap(by, one, key_type, said)

    def unwrap(self, by: Known, one: Wrapped, key_type: KeyType, said: dict[str, Any]) -> Any:
        try:
            view = self.keyring.unwrap(by.view, one.data, key_type, **said)
        except LnhError:
            return multiple()
        assert not by.gone
        assert by[A.UNWRAP] is True
        assert by[A.CHECK_VALUE] == one.by[A.CHECK_VALUE]
        made = self._came_out(view, by)
        assert (made[A.ALWAYS_SENSITIVE], made[A.NEVER_EXTRACTABLE]) == (False, False)
        return made

    @rule(target=known, base=known, key_type=types, said=st.one_of(plain, said))
    def derive(self, base: Known, key_type: KeyType, said: dict[str, Any]) -> Any:
        aes = base[A.KEY_TYPE] == K.AES
        mechanism, parameters = (M.SP800_108_COUNTER_KDF, None) if aes else (M.HKDF_DERIVE, HkdfParameters(info=b"i"))
        try:
            view = self.keyring.derive(base.view, key_type, mechanism, parameters, **said)
        except LnhError:
            return multiple()
        assert not base.gone
        assert base[A.DERIVE] is True
        made = self._came_out(view, base)
        assert made[A.ALWAYS_SENSITIVE] is base[A.ALWAYS_SENSITIVE]
        assert made[A.NEVER_EXTRACTABLE] is (base[A.NEVER_EXTRACTABLE] and not made[A.EXTRACTABLE])
        return made

    @rule(target=known, said=st.one_of(plain, said), key_type=types)
    def agree(self, key_type: KeyType, said: dict[str, Any]) -> Any:
        pair, base = self.pair, Known(self.pair.private)
        try:
            mine, ciphertext = self.keyring.encapsulate(pair.public, key_type, TOKEN=False)
            theirs = self.keyring.decapsulate(pair.private, ciphertext, key_type, **said)
        except LnhError:
            return multiple()
        assert mine.attributes[A.CHECK_VALUE] == theirs.attributes[A.CHECK_VALUE]
        return multiple(self._came_out(mine, base), self._came_out(theirs, base))

    # --- what is changed, and ends

    @rule(one=known, said=said)
    def change(self, one: Known, said: dict[str, Any]) -> None:
        try:
            view = self.keyring.set(one.view, **said)
        except LnhError:
            return
        assert not one.gone
        assert not one.login, "an object of a session is not changed"
        assert one[A.MODIFIABLE] is True or set(said) <= {"TRUSTED"}
        assert one[A.TRUSTED] is not True or set(said) <= {"TRUSTED"}
        assert self.role is Role.KRSO or view.attributes[A.TRUSTED] == one[A.TRUSTED]
        assert view.version == one.view.version + 1
        for name in FIXED:
            assert view.attributes.get(name) == one[name]
        self._one_way(one.view, view)
        one.view = view

    @staticmethod
    def _one_way(before: ObjectView, after: ObjectView) -> None:
        for name in ONLY_TRUE:
            assert after.attributes.get(name) is True or before.attributes.get(name) is not True
        for name in ONLY_FALSE:
            assert after.attributes.get(name) is not True or before.attributes.get(name) is True
        assert set(after.attributes[A.ALLOWED_MECHANISMS]) <= set(before.attributes[A.ALLOWED_MECHANISMS])

    @rule(one=known)
    def read(self, one: Known) -> None:
        try:
            value = self.keyring.value(one.view)
        except errors.AttributeSensitive:
            assert not one.is_readable
            return
        except errors.ObjectUnknown:
            assert one.gone or one.login not in (0, self.login)
            return
        assert one.is_readable
        assert one.value in (None, value)

    @rule(one=consumes(known))
    def destroy(self, one: Known) -> None:
        try:
            self.keyring.destroy(one.view)
        except LnhError:
            assert one.gone or one.login or one[A.DESTROYABLE] is False
            return
        assert one[A.DESTROYABLE] is True
        one.gone = True
        with pytest.raises(errors.ObjectUnknown):
            self.keyring.copy(one.view)

    @rule(role=st.sampled_from([Role.KRCO, Role.KRSO]))
    def log_in(self, role: Role) -> None:
        self.keyring.log_in(role)
        self.role, self.login = role, self.login + 1

    @rule()
    def log_out(self) -> None:
        client = self.keyring.client
        client.ask(session.LOGOUT, session.Logout())
        with pytest.raises(errors.TokenUnknown):
            client.ask(objects.FIND, objects.Find(), self.keyring.id)
        self.log_in(Role.KRCO)

    @invariant()
    def every_object_is_as_it_was_last_seen(self) -> None:
        if not hasattr(self, "keyring"):
            return
        found = {view.handle: view for view in self.keyring.all()}
        for one in self.all:
            if one.gone:
                assert one.view.handle not in found
            elif not one.login:
                assert found[one.view.handle] == one.view
            elif one.login != self.login:
                with pytest.raises(errors.ObjectUnknown):
                    self._show(one)
            else:
                assert self._show(one).attributes == one.view.attributes

    def _show(self, one: Known) -> ObjectView:
        asked = objects.Show(handle=one.view.handle, sealed=carried(one.view))
        return self.keyring.client.ask(objects.SHOW, asked, self.keyring.id)


Keys.TestCase.settings = settings(
    max_examples=sized(25), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestKeys = Keys.TestCase
