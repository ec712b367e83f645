"""``velda-apiserver agent-certificate``: gets an agent's certificate before the agent starts, as its init container.

The key is made here and leaves the pod never; the pod's token says for whom the certificate is. What else the agent
needs to get another one, when the CA has changed, is left beside it.
"""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.agent.issued import ROOTS_FILE, URL_FILE, Issued

REQUEST_TIMEOUT = 10.0
RETRY = 2.0
ANSWER_LIMIT = 64 * 1024
"""Bytes."""
BAD_REQUEST = 400

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The server's answer, as it said it; ``final``: it would be the same again."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


FAILURES = (OSError, http.client.HTTPException, RefusedError)
"""What asking for a certificate may raise."""


def run(*, url: str, ca: Path, token: Path, directory: Path, timeout: float) -> int:
    """Ask ``url`` until there is a certificate, or ``timeout`` seconds are over; the exit code.

    ``directory`` then has tls.crt and tls.key, which only its owner may read, and ROOTS_FILE and URL_FILE.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    deadline = time.monotonic() + timeout
    while True:
        try:
            issued = obtain(url, ca=ca, token=token)
            break
        except FAILURES as error:
            log.warning("no certificate from %s: %s", url, error)
            if time.monotonic() + RETRY > deadline or (isinstance(error, RefusedError) and error.final):
                return 1
            time.sleep(RETRY)
    _write(directory / URL_FILE, url.encode(), mode=0o644)
    _write(directory / ROOTS_FILE, issued.roots, mode=0o644)
    _write(directory / "tls.key", issued.key, mode=0o600)
    _write(directory / "tls.crt", issued.certificate, mode=0o644)
    log.info("the certificate is in %s", directory)
    return 0


def obtain(url: str, *, ca: Path, token: Path) -> Issued:
    """A certificate for a new key. Raises FAILURES."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    roots = ca.read_bytes()
    certificate = ask(url, request.public_bytes(serialization.Encoding.PEM), ca=ca, token=token)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Issued(key.private_bytes(*form), certificate, roots)


def ask(url: str, request: bytes, *, ca: Path, token: Path) -> bytes:
    """POST the signing request, to a server that a CA in the file ``ca`` vouches for; what it issued (PEM)."""
    address = urlsplit(url)
    context = ssl.create_default_context(cafile=str(ca))
    headers = {"Authorization": f"Bearer {token.read_text().strip()}", "Content-Type": "application/x-pem-file"}
    connection = http.client.HTTPSConnection(address.netloc, timeout=REQUEST_TIMEOUT, context=context)
    try:
        connection.request("POST", address.path, request, headers)
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT)
    finally:
        connection.close()
    if answer.status != http.client.OK:
        message = body.decode(errors="replace").strip()
        raise RefusedError(f"{answer.status}: {message}", final=answer.status == BAD_REQUEST)
    return body


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """In one step, so that nobody sees half of it; a container that starts again replaces it."""
    aside = path.with_name(f".{path.name}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    aside.rename(path)
