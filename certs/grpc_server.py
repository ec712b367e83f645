"""The server's side of TLS for gRPC, with a certificate that changes while it serves.

gRPC asks at each handshake, and replaces what handshakes share without a lock: two that replace, or one that begins
while another replaces, corrupt its memory (seen as crashes with grpcio 1.85). So nothing is replaced that has not
changed, and around a change handshakes stand still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from certs.authority import KeyPair

GRACE = 0.25
"""Seconds, before and after a change, that handshakes have to get from our answer to a state of their own, which takes
microseconds. New connections wait for as long, the standing ones notice nothing."""


def server_credentials(
    pair: Callable[[], KeyPair],
    *,
    trusted: Callable[[], bytes] | None = None,
    begins: Callable[[], None] = lambda: None,
) -> grpc.ServerCredentials:
    """``pair`` gives what to serve, ``trusted`` the CAs (PEM, never empty) of the certificates that clients must show;
    without it they are asked for none. ``begins`` is told of each handshake. All are called in threads of gRPC's.
    """
    current = _Current(pair, trusted)
    first = current.configuration()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        begins()
        return current.changed()

    return grpc.dynamic_ssl_server_credentials(
        first,
        fetch,  # type: ignore[arg-type]  # None for no change is documented; types-grpcio leaves it out
        require_client_authentication=trusted is not None,
    )


class _Current:
    def __init__(self, pair: Callable[[], KeyPair], trusted: Callable[[], bytes] | None) -> None:
        self._pair = pair
        self._trusted = trusted
        self._lock = threading.Lock()
        self._shown = self._wanted()
        self._settled_at = 0.0

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        served, trusted = self._shown
        return grpc.ssl_server_certificate_configuration(
            [(served.key, served.certificate)], root_certificates=trusted or None
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshakes begin with; None if it is what they begin with already."""
        with self._lock:
            time.sleep(max(0.0, self._settled_at - time.monotonic()))
            if (wanted := self._wanted()) == self._shown:
                return None
            time.sleep(GRACE)
            self._shown, self._settled_at = wanted, time.monotonic() + GRACE
            return self.configuration()

    def _wanted(self) -> tuple[KeyPair, bytes]:
        return self._pair(), self._trusted() if self._trusted else b""
