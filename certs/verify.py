"""Whether a client would take our certificate: by a TLS handshake with ourselves, in memory, as it would make it."""

from __future__ import annotations

import ssl


def refusal(server: ssl.SSLContext, *, host: str, bundle: bytes) -> str | None:
    """Why a client that trusts ``bundle`` alone (PEM) and calls ``host`` would turn away; None when it would not."""
    if not bundle.strip():
        return "there is no CA to trust"
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        client.load_verify_locations(cadata=bundle.decode("ascii"))
        _shake_hands(client, server, host)
    except UnicodeDecodeError:
        return "what to trust is no PEM"
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (ssl.SSLError, ValueError) as error:
        return str(error)
    return None


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """Until the client has seen and verified the certificate; it speaks first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=host)
    answerer = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (caller, answerer, caller):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    caller.getpeercert()
