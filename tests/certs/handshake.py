"""A TLS handshake in memory: whom does a client see that trusts a bundle?"""

from __future__ import annotations

import ssl


def presented(server: ssl.SSLContext, *, bundle: bytes, name: str) -> bytes:
    """The certificate (PEM) that a client gets that trusts ``bundle`` and calls ``name``; raises as the client does."""
    context = ssl.create_default_context(cadata=bundle.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    peer = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, peer):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = client.getpeercert(binary_form=True)
    assert certificate
    return ssl.DER_cert_to_PEM_cert(certificate).encode()
