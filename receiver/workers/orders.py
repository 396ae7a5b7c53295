"""What a worker is given at its start, before it has a loop: settings, then the journal's numbers and its sockets.

Each is a pickle behind its length in four bytes; the sockets come with the second (SCM_RIGHTS). Pickles, because both ends
are one program that started the other, over a pair of sockets that nobody else has.
"""

import pickle
import socket
from typing import Any, NamedTuple

from receiver.config import Settings
from receiver.journal import Origin

_LENGTH_BYTES = 4
_MOST_SOCKETS = 200


class Orders(NamedTuple):
    """Who the worker is, and everything the receiver is told."""

    number: int
    settings: Settings


class Opening(NamedTuple):
    """What the journal knew at start, and which listener and transport each socket is of; then panels may come."""

    origins: dict[Origin, int]
    home: int
    newest_us: int
    newest_stamp_us: int
    ports: list[tuple[int, str]]


def send(sock: socket.socket, told: Orders | Opening, handles: list[int]) -> None:
    """Send orders, or an opening with its sockets.

    Raises:
        OSError: the worker has gone.
    """
    content = pack(told)
    content = len(content).to_bytes(_LENGTH_BYTES, "big") + content
    sent = socket.send_fds(sock, [content], handles) if handles else 0
    sock.sendall(content[sent:])


def receive(sock: socket.socket) -> tuple[Orders | Opening, list[int]]:
    """Wait for orders or an opening, and return it with the handles that came along.

    Raises:
        EOFError: the receiver has gone.
    """
    content, handles, wanted = b"", list[int](), _LENGTH_BYTES
    while len(content) < wanted:
        data, more, _, _ = socket.recv_fds(sock, wanted - len(content), _MOST_SOCKETS)
        if not data:
            raise EOFError
        content += data
        handles += more
        if len(content) == _LENGTH_BYTES:
            wanted += int.from_bytes(content, "big")
    return unpack(content[_LENGTH_BYTES:]), handles


def pack(told: Any) -> bytes:
    """Make a pickle."""
    return pickle.dumps(told)


def unpack(content: bytes) -> Any:
    """Read a pickle of the process that started us."""
    return pickle.loads(content)  # noqa: S301
