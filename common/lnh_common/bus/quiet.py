"""Sockets that seldom have something to say, behind one descriptor that a poll loop looks at in their place.

`zmq_poll` makes several system calls for each socket it is given, every time. A socket's own descriptor costs nothing
while nothing happens, but it tells of *changes* (zmq_getsockopt(3), ZMQ_FD): whatever uses the socket may take the news
in on the way. So after the descriptor became readable, and after any use of one of the sockets, `ready` is to be
asked again, until it names none.
"""

from __future__ import annotations

import select
from typing import Final

import zmq

Socket = zmq.Socket[bytes]


class Quiet:
    """A set of sockets; `descriptor` becomes readable when one of them may have something to be read."""

    def __init__(self) -> None:
        self._epoll: Final = select.epoll()
        self._sockets: Final[set[Socket]] = set()
        self.descriptor: Final = self._epoll.fileno()

    def add(self, *sockets: Socket) -> None:
        """Watch these sockets from now on."""
        for socket in sockets:
            self._sockets.add(socket)
            self._epoll.register(int(socket.getsockopt(zmq.FD)), select.EPOLLIN)

    def remove(self, *sockets: Socket) -> None:
        """Watch these sockets no longer; call it before they are closed."""
        for socket in sockets:
            self._sockets.remove(socket)
            self._epoll.unregister(int(socket.getsockopt(zmq.FD)))

    def ready(self) -> set[Socket]:
        """Return the sockets that have something to be read now."""
        return {socket for socket in self._sockets if int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN}

    def close(self) -> None:
        """Close the descriptor; the sockets stay open."""
        self._epoll.close()
