"""The TLS context that the HTTPS server keeps for life, while the certificate behind it changes.

A pair is loaded into a context of its own and only then swapped in: loading a mismatched pair into a live context
breaks it. Connections that stand keep what they were opened with.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime

from certs.authority import KeyPair, issue_authority, issue_leaf


class Serving:
    """``context`` is what the server keeps.

    Until the first ``swap`` it serves a throwaway certificate: the kubelet, which verifies none, can probe at once.
    """

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.context = _load(issue_leaf(issue_authority(now=now), names=["not-ready.invalid"], now=now))
        self.context.sni_callback = self._choose
        self._current = self.context

    def swap(self, pair: KeyPair) -> None:
        """Serve ``pair`` to each connection from now on; ssl.SSLError, and nothing changed, if it cannot be."""
        self._current = _load(pair)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks at every handshake, also of a client that names no server.
        connection.context = self._current


def _load(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL takes a key from a file only; this one is in memory and has no name.
    file = os.memfd_create("certificate")
    try:
        os.write(file, pair.certificate.rstrip() + b"\n" + pair.key)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return context
