"""One session, in a process of its own: a port that greets each connection and stays open until the peer leaves.

Run as a script by the agent (``child.py SESSION_ID IDLE_SECONDS FINISH``), with the standard library alone, so that
it starts in milliseconds and stays small. It ends on SIGTERM, when its standard input closes (the agent is gone),
after IDLE_SECONDS without a connection (0: never), and with FINISH ``terminate`` when its last connection closes.
Once it listens it prints one line: its port and its host key in hexadecimal.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import time


def host_key() -> bytes:
    """A public key in SSH's wire format; its 32 bytes are random, for nothing here ever signs."""
    return b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-ed25519", os.urandom(32)))


def listen() -> socket.socket:
    """An ephemeral port on every address that the host has, IPv4 and IPv6."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def serve(listener: socket.socket, *, greeting: bytes, idle: float, terminate: bool) -> None:
    """Until the session has to end."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    connections: set[socket.socket] = set()
    idle_since = time.monotonic()
    while True:
        left = None if connections or not idle else idle_since + idle - time.monotonic()
        if left is not None and left <= 0:
            return
        for key, _ in selector.select(left):
            if key.fileobj is listener:
                connection = _accept(listener, greeting)
                if connection:
                    connections.add(connection)
                    selector.register(connection, selectors.EVENT_READ)
            elif not isinstance(key.fileobj, socket.socket):
                return
            elif _ended(key.fileobj):
                selector.unregister(key.fileobj)
                connections.discard(key.fileobj)
                key.fileobj.close()
                idle_since = time.monotonic()
                if terminate and not connections:
                    return


def _accept(listener: socket.socket, greeting: bytes) -> socket.socket | None:
    connection, _ = listener.accept()
    try:
        connection.sendall(greeting)
    except OSError:
        connection.close()
        return None
    return connection


def _ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(4096)
    except OSError:
        return True


def main() -> None:
    session_id, idle, finish = sys.argv[1:]
    listener = listen()
    print(listener.getsockname()[1], host_key().hex(), flush=True)  # noqa: T201
    serve(
        listener, greeting=f"velda session {session_id}\n".encode(), idle=float(idle), terminate=finish == "terminate"
    )


if __name__ == "__main__":
    main()
