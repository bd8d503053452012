"""The PKCS#11 module, built and loaded, and a gateway of the test's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lnh_pkcs11.module import build
from models.pkcs11_application import Application
from models.pkcs11_gateway import Answer, Gateway, body, serving
from waits import wait_until

ROOT = Path(__file__).parents[3]


def built(kind: str, *flags: str) -> Path:
    """Build the module with more flags; once for these sources, whoever asks."""
    cc = build.compiler()
    if cc is None:
        pytest.skip("there is no C compiler")
    digest = hashlib.sha256(repr((cc, flags)).encode())
    for source in sorted(build.HERE.glob("*.[chp]*")):
        digest.update(source.read_bytes())
    target = ROOT / "build" / "pkcs11" / f"{kind}-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        build.build(target, cc, flags)
    return target


@pytest.fixture(scope="session")
def module_path() -> Path:
    """The module that is tested: as it is shipped, or the one that LNH_TEST_PKCS11_MODULE names."""
    named = os.environ.get("LNH_TEST_PKCS11_MODULE")
    return Path(named) if named else built("plain")


@pytest.fixture(scope="session")
def sanitized_module() -> Path:
    """The module with the sanitizers, which their library is to be loaded before."""
    return built("sanitized", *build.SANITIZERS)


@pytest.fixture(scope="session")
def loaded(module_path: Path) -> Application:
    return Application(module_path)


@pytest.fixture
def application(loaded: Application) -> Iterator[Application]:
    """The module, not initialised before the test nor after it."""
    yield loaded
    loaded.call("Finalize", None)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module looks for its gateway; the path is short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="lnh-p11-")
    path = Path(directory) / "pkcs11.sock"
    monkeypatch.setenv("LNH_PKCS11_ADDRESS", str(path))
    yield path
    shutil.rmtree(directory)


@pytest.fixture
def serve(address: Path, application: Application) -> Iterator[Callable[[Answer], Gateway]]:
    """Start a gateway with an answer, and initialise the module with it."""
    with serving(address, lambda request: body(request.id, "")) as gateway:

        def start(answer: Answer) -> Gateway:
            gateway.answer = answer
            # Again where the module gave up: a test may leave the gateway a second, in which a busy machine does little.
            wait_until(lambda: application.call("Initialize", None) == 0, "the gateway's greeting")
            return gateway

        yield start
        application.call("Finalize", None)
