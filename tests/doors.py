"""A balancer as a process with echo workers behind it, and clients of it that are bare sockets."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from lnh_common.bus import curve
from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError
from lnh_common.messages import balancer, store
from lnh_common.wire import codec, frames
from processes import Processes, RunningMember, ask
from waits import wait_until

WORKER = str(Path(__file__).parent / "cluster" / "echo_worker.py")
BODY = b"a sealed body"
MEMBER = store.MemberInfo(id=b"M" * 16, name="A", host="127.0.0.1", port=4000, key=b"k" * 32)


class Client:
    """A client's bare socket: what it sends is the test's business."""

    def __init__(self, port: int, server_key: bytes, holds: int = 0, keys: curve.KeyPair | None = None) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = holds  # answers it takes from the network before the test reads them; 0: any number
        self.socket.sndhwm = 0
        self.keys = keys or curve.KeyPair.generate()
        curve.connect(self.socket, server_key, self.keys)
        # Watched from before it connects: libzmq tries again only after seconds.
        self.ended = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self._last = 0

    def send(
        self, operation: str = "key.sign", body: bytes = BODY, deadline: float = 10.0, token: bytes = b"token"
    ) -> int:
        self._last += 1
        header = frames.request(operation, self._last, int(deadline * 1000), route=bytes(16))
        self.socket.send_multipart([header.pack(), token, body])
        return self._last

    def answer(self, within: float = 10.0) -> tuple[frames.Header, LnhError | bytes]:
        assert self.socket.poll(int(within * 1000)), "no answer came"
        header, _, body = self.socket.recv_multipart()
        parsed = frames.Header.parse(header)
        return parsed, frames.parse_error(body) if parsed.kind is frames.Kind.ERROR else body

    def exchange(self, operation: str = "key.sign", body: bytes = BODY, deadline: float = 10.0) -> LnhError | bytes:
        asked = self.send(operation, body, deadline)
        header, answer = self.answer(deadline + 5)
        assert header.request_id == asked
        return answer


class Door:
    """A balancer, its workers, and clients of it."""

    def __init__(self, processes: Processes, root: Path, workers: int = 2) -> None:
        self.member = RunningMember(processes, root, workers=workers, stop=8000)
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.modes: dict[int, tuple[str, ...]] = {}
        self.clients: list[Client] = []
        self._prepared = 0
        self.member.directory.create()
        self.start()

    def start(self) -> None:
        root = str(self.member.directory.root)
        self.process = self.member.processes.start("-m", "lnh_services.balancer", "--member-dir", root)
        wait_until(self.is_serving, "a serving balancer")

    def start_worker(self, number: int, *mode: str) -> None:
        self.prepare_worker(number, *mode)()

    def prepare_worker(self, number: int, *mode: str) -> Callable[[], None]:
        """Start a worker where the balancer does not look yet; what brings it to its place, and waits for it there."""
        address = self.member.directory.worker_address(number)
        self._prepared += 1
        process = self.member.processes.start(WORKER, f"{address}.{self._prepared}", *mode)
        path = Path(address.removeprefix("ipc://"))
        aside = path.with_name(f"{path.name}.{self._prepared}")
        wait_until(aside.exists, f"worker {number}'s socket")

        def ready() -> None:
            self.modes[number], self.workers[number] = mode, process
            aside.rename(path)
            wait_until(lambda: self.status().backends[number].state == "serving", f"worker {number}")

        return ready

    def is_serving(self) -> bool:
        assert self.process.poll() is None, "the balancer ended"
        with contextlib.suppress(LnhError):
            return self.status().state == "serving"
        return False

    def status(self) -> balancer.Status:
        return ask(self.member.directory.balancer_status, balancer.STATUS)

    def client(self, holds: int = 0, keys: curve.KeyPair | None = None) -> Client:
        key = curve.KeyPair.load(self.member.directory.client_keys).public
        self.clients.append(Client(self.member.settings.client_port, key, holds, keys))
        return self.clients[-1]

    def door_client(self) -> Client:
        self.clients.append(Client(self.member.settings.door_port, curve.DOOR.public))
        return self.clients[-1]


class Records:
    """The store beside a balancer, with client records as an hsm would write them; nobody checks their HMAC here."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.versions: dict[bytes, int] = {}
        self.sequence = 0
        self.start()
        self.caller = Caller(door.member.directory.store_for_hsm, reach=20.0)
        self.caller.ask(store.CREATE, store.Create(cluster=b"C" * 16, member=MEMBER), timeout=20)

    def start(self) -> None:
        root = str(self.door.member.directory.root)
        self.process = self.door.member.processes.start("-m", "lnh_services.store", "--member-dir", root)

    def put(self, name: str, key: bytes, *, revoked: bool = False, damaged: bool = False) -> None:
        client = name.encode().ljust(16)
        record = {"id": client, "name": name, "curve_key": key, "revoked": revoked, "keyrings": [], "later": 1}
        head = b"no record" if damaged else codec.encode(record)
        at = store.Key(table="client", id=client)
        version = self.versions.get(client, 0)
        self._commit(store.Put(key=at, expected=version, head=head, body=b"mac"))
        self.versions[client] = version + 1

    def delete(self, name: str) -> None:
        client = name.encode().ljust(16)
        self._commit(store.Delete(key=store.Key(table="client", id=client), expected=self.versions.pop(client)))

    def _commit(self, change: store.Change) -> None:
        self.sequence += 1
        issued_at = time.time_ns() // 1_000_000
        commit = store.Commit(
            client=b"c" * 16, session=b"s" * 16, sequence=self.sequence, issued_at=issued_at, changes=(change,)
        )
        self.caller.ask(store.COMMIT, commit, timeout=20)


def becomes(client: Client, wanted: type[LnhError] | bytes, operation: str = "key.sign") -> None:
    """Wait until what this client asks is answered so."""

    def answered() -> bool:
        answer = client.exchange(operation)
        return answer == wanted if isinstance(wanted, bytes) else isinstance(answer, wanted)

    wait_until(answered, f"the answer {wanted!r}")
