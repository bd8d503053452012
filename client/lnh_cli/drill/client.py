"""The application that works while a drill goes on: it signs, and makes keys that must never be lost.

It is a process of its own, `python -m lnh_cli.drill.client KEYRING CLUSTER LABEL EVERY`, since commands of a drill
are forked from one without threads. Each line of its standard output is an `Event`; what it is told comes in lines on
its standard input, whose end is its own:

    hold                  make no keys; answered when none is under way
    resume                make keys again
    account ADDRESS NAME  look for every acknowledged key through this member, and sign there
    clean                 end the work, and destroy what was made
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import msgspec
import typer

from lnh.keyrings import KeyringSession
from lnh.objects.keys import PrivateKey
from lnh_cli.drill.report import Event, What
from lnh_cli.support import terminal
from lnh_cli.support.options import KeyringOptions
from lnh_common.errors import Busy, LnhError, MemberBehind, MemberReadOnly, OutcomeUnknown
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import Mechanism

SIGNS_EVERY: Final = 0.02  # seconds: the processor is for the members
_RETRIES_EVERY: Final = 0.2
_DATA: Final = bytes(32)
_SESSION_GOES_ON: Final = (Busy, MemberBehind, MemberReadOnly, OutcomeUnknown)  # the next act may do


Work = Callable[[KeyringSession], Callable[[], None]]


class Client:
    """Two threads with a session each: one signs, one makes keys; each logs in again when its session is over.

    Args:
        options: where and as whom; `tell` gets what happens.
        label: of all that is made.
        makes_every: seconds between two keys.
    """

    def __init__(self, options: KeyringOptions, label: str, makes_every: float, tell: Callable[[Event], None]) -> None:
        self._options = options
        self._label = label
        self._tell = tell
        self._over = threading.Event()
        self._may_make = threading.Event()
        self._may_make.set()
        self._making = threading.Lock()  # held while a key is under way
        self.made: list[bytes] = []
        with ExitStack() as opened:
            session = self._opened(opened, "sign")
            self._pair = [key.handle for key in session.generate_keypair(KeyType.EC, curve="P-256", label=label)]
        works = (("sign", self._signing, SIGNS_EVERY), ("make", self._making_keys, makes_every))
        self._threads = [threading.Thread(target=self._go_on, args=work) for work in works]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the work, and wait for what is under way."""
        self._over.set()
        self._may_make.set()
        for thread in self._threads:
            thread.join()

    def obey(self, line: str) -> None:
        """Do what a line says."""
        word, *more = line.split()
        began = time.monotonic()
        if word == "hold":
            self._may_make.clear()
            with self._making:
                self._say(What.HELD, began)
        elif word == "resume":
            self._say(What.RESUMED, began)
            self._may_make.set()
        elif word == "account":
            self._account(*more)
        elif word == "clean":
            self._clean()

    def _opened(self, stack: ExitStack, act: str) -> KeyringSession:
        began = time.monotonic()
        session = stack.enter_context(self._options.session())
        self._say(What.LOGIN, began, words=act)
        return session

    def _go_on(self, act: str, work: Work, every: float) -> None:
        while not self._over.is_set():
            try:
                with ExitStack() as opened:
                    self._work(self._opened(opened, act), act, work, every)
            except LnhError as error:
                self._say_error(act, error)
                self._over.wait(_RETRIES_EVERY)
            except typer.Exit:  # a kept session is over, and nobody can be asked for the password
                self._say(What.ERROR, time.monotonic(), words=act, problem="no session is kept any more: log in again")
                return

    def _work(self, session: KeyringSession, act: str, work: Work, every: float) -> None:
        """Work until it is over; raises what ends the session."""
        try:
            do = work(session)
            while not self._over.wait(every):
                try:
                    do()
                except _SESSION_GOES_ON as error:
                    self._say_error(act, error)
                    self._over.wait(_RETRIES_EVERY)
        except LnhError:
            session.abandon()  # nobody that could end it may be there
            raise

    def _signing(self, session: KeyringSession) -> Callable[[], None]:
        key = self._signer(session)

        def sign() -> None:
            began = time.monotonic()
            key.sign(_DATA, Mechanism.ECDSA)
            self._say(What.SIGNED, began)

        return sign

    def _signer(self, session: KeyringSession) -> PrivateKey:
        key = session.get_object(self._pair[1])
        assert isinstance(key, PrivateKey), "the pair's private half is the second"
        return key

    def _making_keys(self, session: KeyringSession) -> Callable[[], None]:
        def make() -> None:
            self._may_make.wait()
            with self._making:
                if not self._may_make.is_set() or self._over.is_set():
                    return
                began = time.monotonic()
                handle = session.generate_key(KeyType.AES, 256, label=self._label).handle
                self.made.append(handle)
                self._say(What.MADE, began, handle=handle.hex())

        return make

    def _account(self, address: str, name: str) -> None:
        began, made = time.monotonic(), set(self.made)
        try:
            with _options(self._options.keyring, self._options.cluster, address).session() as session:
                found = {each.handle for each in session.find(label=self._label, current=True)}
                self._signer(session).sign(_DATA, Mechanism.ECDSA)
        except LnhError as error:
            self._say(What.ACCOUNTED, began, member=name, problem=f"{type(error).__name__}: {error}")
            return
        self._say(What.ACCOUNTED, began, member=name, lost=tuple(sorted(handle.hex() for handle in made - found)))

    def _clean(self) -> None:
        began = time.monotonic()
        self.stop()
        try:
            with self._options.session() as session:
                for each in list(session.find(label=self._label)):
                    each.destroy()
        except LnhError as error:
            self._say(What.CLEANED, began, problem=f"{type(error).__name__}: {error}")
            return
        self._say(What.CLEANED, began)

    def _say_error(self, act: str, error: LnhError) -> None:
        self._say(What.ERROR, time.monotonic(), words=act, problem=f"{type(error).__name__}: {error}")

    def _say(self, what: What, began: float, **more: Any) -> None:
        now = time.monotonic()
        self._tell(Event(now, what, took=now - began, **more))


def _options(keyring: str, cluster: str | None, member: str | None = None) -> KeyringOptions:
    return KeyringOptions(keyring=keyring, cluster=cluster or None, member=member)


def main() -> None:
    """Work until the standard input ends, or this process is told to."""
    keyring, cluster, label, every = sys.argv[1:]
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
            sys.stdout.buffer.flush()

    try:
        client = Client(_options(keyring, cluster), label, float(every), tell)
    except LnhError as error:
        terminal.note(f"{type(error).__name__}: {error}")
        sys.exit(terminal.REFUSED)
    except typer.Exit as refused:
        sys.exit(refused.exit_code)
    client.start()
    try:
        for line in sys.stdin:
            client.obey(line)
    finally:
        client.stop()


if __name__ == "__main__":
    main()
