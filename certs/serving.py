"""The TLS contexts that the HTTPS servers keep for life, while the certificate behind them changes.

A pair is loaded into a context of its own and only then swapped in: loading a mismatched pair into a live context
breaks it. Connections that stand keep what they were opened with.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime

from certs.authority import KeyPair, issue_authority, issue_leaf


class Serving:
    """``context`` is what the server keeps, ``client_context`` the one of the port that asks for client certificates,
    ``pair`` what they serve; ``throwaway`` the CA of the first of those.

    Until the first ``swap`` it serves a throwaway certificate: the kubelet, which verifies none, can probe at once.
    """

    def __init__(self) -> None:
        now = datetime.now(UTC)
        authority = issue_authority(now=now)
        self.throwaway = authority.certificate
        self.pair = issue_leaf(authority, names=["not-ready.invalid"], now=now)
        self._authority = b""
        self.context = self._current = load(self.pair)
        self.context.sni_callback = self._choose
        self.client_context = self._current_of_clients = _load_for_clients(self.pair, self._authority)
        self.client_context.sni_callback = self._choose_for_clients

    def swap(self, pair: KeyPair) -> None:
        """Serve ``pair`` to each connection from now on; ssl.SSLError, and nothing changed, if it cannot be."""
        self._current, self._current_of_clients = load(pair), _load_for_clients(pair, self._authority)
        self.pair = pair

    def trust_clients(self, authority: bytes) -> None:
        """Take client certificates of these CAs (DER, one after the other) from now on; none are asked for without."""
        self._current_of_clients = _load_for_clients(self.pair, authority)
        # A connection has its mode, unlike all else, from the context that it begins with.
        self.client_context.verify_mode = self._current_of_clients.verify_mode
        self._authority = authority

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks at every handshake, also of a client that names no server.
        connection.context = self._current

    def _choose_for_clients(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current_of_clients


def load(pair: KeyPair) -> ssl.SSLContext:
    """A context of its own that serves ``pair``; raises ssl.SSLError."""
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


def _load_for_clients(pair: KeyPair, authority: bytes) -> ssl.SSLContext:
    """No session is resumed: that would take a client's certificate without a look at who is trusted now."""
    context = load(pair)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    if authority:
        context.load_verify_locations(cadata=authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
