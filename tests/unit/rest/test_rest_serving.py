"""The end of the service, with clients that keep their connections."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from lnh_common import limits
from lnh_rest.serving import Address, BoundedProtocol
from lowered import lower
from processes import free_base_port
from rest_service import HOST, Rest, certificate_of
from waits import wait_until


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_client_that_asks_nothing_more_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, REST_FAREWELL=0)
    certificate, key = certificate_of(tmp_path)
    port = free_base_port()
    address = Address(HOST, port, certificate, key)
    context = address.context()
    assert context is not None
    config = uvicorn.Config(
        answer, host=HOST, port=port, http=BoundedProtocol, ws="none", lifespan="off", log_config=None,
        access_log=False, timeout_graceful_shutdown=600, timeout_keep_alive=600, ssl_context_factory=lambda *_: context,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server")
        idle = Rest(port, ssl.create_default_context(cafile=str(certificate))).connection()
        idle.request("GET", "/")
        assert idle.getresponse().read() == b""
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        idle.close()
    finally:
        server.force_exit = server.should_exit = True
        thread.join(60)
    assert limits.REST_GRACE > limits.REST_FAREWELL
