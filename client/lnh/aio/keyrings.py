# Made of client/lnh/keyrings.py by `python tests/surface.py`: change that file, and run it.
"""Keyrings: their roles' logins, and their sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from lnh.aio.net.connection import Connection
from lnh.aio.objects.keys import PrivateKey, PublicKey, SecretKey
from lnh.aio.objects.session import ObjectSession, key_message, pair_message
from lnh.aio.sessions import LogIn, Password, Session, asked, change_password, keyring_credential, login
from lnh.arguments import checked
from lnh.objects.encoding import named_policy
from lnh_common import limits
from lnh_common.errors import (
    AlreadyDone,
    ArgumentInvalid,
    CredentialChanged,
    NotPossible,
    VersionConflict,
)
from lnh_common.messages import objects as wire
from lnh_common.messages.admin import (
    KEYRING_POLICY,
    KEYRING_REKEY,
    KEYRING_REKEY_STATE,
    KEYRING_RESEAL,
    ROLE_SET,
    KeyringView,
    PolicyChange,
    RekeyState,
    SetRole,
)
from lnh_common.messages.base import Empty
from lnh_common.messages.session import LoggedIn, Role
from lnh_common.pkcs11.attributes import Attribute, AttributeValue, KeyType
from lnh_common.pkcs11.mechanisms import Mechanism


@checked
class Keyring:
    """A keyring, as it was when it was looked up.

    Attributes:
        id: 16 bytes.
        label: its name in the cluster.
        view: everything else that may be seen without a login.
    """

    def __init__(self, connection: Connection, view: KeyringView, *, timeout: float = limits.DEADLINE) -> None:
        self.id: Final = view.id
        self.label: Final = view.label
        self.view: Final = view
        self._connection: Final = connection
        self._timeout: Final = timeout

    def __repr__(self) -> str:
        return f"<Keyring {self.label!r} {self.id.hex()}>"

    async def login(self, role: Role, password: Password) -> KeyringSession:
        """Log in as this keyring's KRSO or KRCO; the session is a context manager that logs out.

        Args:
            password: or what asks for it. Then the session asks again before it ends, 24 hours after its login or as
                the policy says, and goes on under another login; objects that live in the session end with the first.

        Raises PasswordIncorrect, PasswordLocked, PasswordMustChange (a first KRSO credential is good for
        `change_password` only), KeyringUnknown and what a call raises.
        """
        _check_role(role)

        async def log_in() -> tuple[bytes, LoggedIn]:
            credential = keyring_credential(role, self.id, asked(password))
            return await login(self._connection, credential, route=self.id, timeout=self._timeout)

        secret, logged_in = await log_in()
        again = None if isinstance(password, str) else log_in
        return KeyringSession(self._connection, secret, logged_in, route=self.id, timeout=self._timeout, again=again)

    async def change_password(self, role: Role, old: str, new: str) -> None:
        """Change a holder's own password, which ends the holder's other sessions.

        Raises PasswordIncorrect, PasswordInvalid and what a call raises.
        """
        _check_role(role)
        await change_password(self._connection, keyring_credential(role, self.id, old), new, timeout=self._timeout)

    async def rekey(self, password: str, *, progress: Callable[[int, int], object] | None = None) -> RekeyState:
        """Give this keyring another key, as its KRSO, and seal everything in it anew.

        All its sessions end when that begins, and whoever logs in uses its keys as before. What was interrupted, at any
        point, goes on with the next call; with the last object the key of before is gone.

        Args:
            progress: told after each step of how many of how many objects that is so.

        Raises NotPossible while a member's version cannot read it, MemberReadOnly, SealBroken for an object that no
        longer opens, and what `login` raises.
        """
        wanted = 0
        while True:
            async with await self.login(Role.KRSO, password) as session:
                state = await session.rekey_state()
                wanted = wanted or state.generation + (not state.open)
                if state.generation >= wanted:
                    return await _resealed(session, state, progress)
                # Where it ends this session, a try whose answer was lost has begun it, or somebody else.
                with suppress(AlreadyDone, CredentialChanged):
                    await session.ask(KEYRING_REKEY, Empty())
                session.abandon()


@checked
class KeyringSession(Session, ObjectSession):
    """A session of a keyring's KRSO or KRCO."""

    def __init__(
        self,
        connection: Connection,
        secret: bytes,
        logged_in: LoggedIn,
        *,
        route: bytes = b"",
        timeout: float = limits.DEADLINE,
        again: LogIn | None = None,
    ) -> None:
        Session.__init__(self, connection, secret, logged_in, route=route, timeout=timeout, again=again)
        ObjectSession.__init__(self)

    async def logout(self, *, everywhere: bool = False) -> None:
        """End this session and the objects that live in it, or every session of its credential."""
        await super().logout(everywhere=everywhere)
        self.forget_all()

    def _begin_anew(self, secret: bytes, logged_in: LoggedIn) -> None:
        super()._begin_anew(secret, logged_in)
        self.forget_all()

    async def generate_keys(
        self,
        total: int,
        key_type: KeyType,
        bits: int | None = None,
        *,
        index: int = 1,
        mechanism: Mechanism | None = None,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> list[SecretKey]:
        """Make up to 100 secret keys of one kind in one step, all or none; otherwise as `generate_key`.

        Args:
            total: how many.
            index: each has the label, if there is one, plus a running number from here.

        Raises LimitReached, and as `generate_key` does; TemplateInconsistent for `token=False`.
        """
        one = key_message(key_type, bits, mechanism, template, attributes)
        message = wire.GenerateKeys(mechanism=one.mechanism, template=one.template, total=total, index=index)
        made = await self.ask(wire.GENERATE_MANY, message, timeout)
        return [self._made(view, SecretKey) for view in made.objects]

    async def generate_keypairs(
        self,
        total: int,
        key_type: KeyType,
        *,
        index: int = 1,
        curve: str | None = None,
        parameter_set: str | None = None,
        mechanism: Mechanism | None = None,
        public: Mapping[Attribute, AttributeValue] | None = None,
        private: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> list[tuple[PublicKey, PrivateKey]]:
        """Make up to 100 key pairs of one kind in one step, all or none; otherwise as `generate_keypair`.

        RSA pairs take long and are made one by one.

        Args:
            total: how many.
            index: each has the label, if there is one, plus a running number from here.

        Raises LimitReached, MechanismInvalid, and as `generate_keypair` does.
        """
        one = pair_message(key_type, None, curve, parameter_set, mechanism, public, private, attributes)
        message = wire.GenerateKeyPairs(
            mechanism=one.mechanism,
            public_template=one.public_template,
            private_template=one.private_template,
            total=total,
            index=index,
        )
        made = await self.ask(wire.GENERATE_PAIRS, message, timeout)
        return [(self._made(pair.public, PublicKey), self._made(pair.private, PrivateKey)) for pair in made.pairs]

    async def set_krco(self, password: str) -> None:
        """Set or reset this keyring's KRCO credential; for its KRSO. Raises PermissionDenied, PasswordInvalid."""
        await self.ask(ROLE_SET, SetRole(password=password))

    async def rekey_state(self) -> RekeyState:
        """Tell how far the keyring is with its newest key; raises MemberBehind where no member in step says so."""
        return await self.ask(KEYRING_REKEY_STATE, Empty(), current=True)

    async def policy(self, *, current: bool = False, **changes: object) -> dict[str, Any]:
        """Change fields of this keyring's policy, as its KRSO, and return it. Mechanisms go by name.

        Args:
            current: demand the present policy, from a member that is in step; raises MemberBehind where there is none.

        Raises PermissionDenied, PolicyForbids, ArgumentInvalid, MechanismInvalid.
        """
        return named_policy((await self.ask(KEYRING_POLICY, PolicyChange(changes=changes), current=current)).policy)


async def _resealed(
    session: KeyringSession, state: RekeyState, progress: Callable[[int, int], object] | None
) -> RekeyState:
    """Seal what is left under the newest key, and return the state at the end."""
    while state.open:
        try:
            state = await session.ask(KEYRING_RESEAL, Empty())
        except (VersionConflict, NotPossible):  # an object changed at that moment, or somebody else goes on with it too
            state = await session.rekey_state()
        if progress is not None:
            progress(min(state.done, state.objects), state.objects)
    return state


def _check_role(role: Role) -> None:
    if not role.of_keyring:
        raise ArgumentInvalid(f"{role.value} is no role of a keyring; those are krso and krco")
