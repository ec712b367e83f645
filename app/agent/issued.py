"""What is known of a certificate that was issued to the agent, and where it lies."""

from __future__ import annotations

from typing import NamedTuple

ROOTS_FILE, URL_FILE = "ca.crt", "url"
"""Beside the certificate: the CAs that were known when it was issued, and where it was."""


class Issued(NamedTuple):
    """All PEM; ``roots`` are the CAs that were known then."""

    key: bytes
    certificate: bytes
    roots: bytes
