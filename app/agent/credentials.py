"""TLS as velda.yaml asks for it, from files that others renew: the CA beside it, and the agent's certificate.

A certificate that an init container got is of the CA of that time, whose successor takes none of it: so at the first
dial after a change of the CA there is another one, for the pod's token. A stream that stands needs none.
"""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from app.agent.config import AgentConfig, ConfigError
from app.agent.issued import ROOTS_FILE, URL_FILE, Issued
from app.core.proofs import TOKEN_FILE

log = logging.getLogger(__name__)


class Credentials:
    """Called, it reads the files, and may ask the server; what there was last is used while neither can be.

    Where there is no CA file, gRPC's default roots (or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH) verify the server.
    """

    def __init__(self, settings: AgentConfig, *, ca: Path, token: Path = Path(TOKEN_FILE)) -> None:
        """Raises ConfigError."""
        self._settings = settings
        self._ca = ca
        self._token = token
        self._issued: Issued | None = None
        try:
            self._last = self._read()
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def __call__(self) -> grpc.ChannelCredentials:
        try:
            self._last = self._read()
        except OSError as error:
            log.warning("%s: cannot be read: %s", error.filename, error.strerror)
        return self._last

    def _read(self) -> grpc.ChannelCredentials:
        roots = self._ca.read_bytes() if self._ca.exists() else None
        if not self._settings.client_certificate:
            return grpc.ssl_channel_credentials(root_certificates=roots)
        issued = self._current(roots or b"")
        return grpc.ssl_channel_credentials(
            root_certificates=roots, private_key=issued.key, certificate_chain=issued.certificate
        )

    def _current(self, roots: bytes) -> Issued:
        """What there is, or another one if the CAs are not those of its time."""
        key, certificate = Path(self._settings.client_key), Path(self._settings.client_certificate)
        url, then = certificate.with_name(URL_FILE), certificate.with_name(ROOTS_FILE)
        issued = self._issued or Issued(key.read_bytes(), certificate.read_bytes(), _content(then) or roots)
        if issued.roots == roots or not url.exists():
            return issued
        from app.agent.certificate import FAILURES, obtain  # noqa: PLC0415  takes memory, which most never need

        try:
            self._issued = obtain(url.read_text(), ca=self._ca, token=self._token)
        except FAILURES as error:
            log.warning("no certificate of the new CA yet: %s", error)
            return issued
        log.info("the CA has changed: another certificate is there")
        return self._issued


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
