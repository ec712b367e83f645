"""Client certificates of agents: in a URI each names a pod, and counts together with that live one only."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import BACKDATE, KeyPair, signer, usage


def pod_uri(*, namespace: str, name: str, uid: str) -> str:
    return f"velda://{namespace}/{name}/{uid}"


def issue_agent(authority: KeyPair, *, request: bytes, uri: str, now: datetime) -> bytes:
    """The certificate (PEM) for the key of a signing request (PEM), of which nothing else is taken; ValueError.

    It lives as long as the CA: what ends it is the end of the pod.
    """
    signing = x509.load_pem_x509_csr(request)
    key = signing.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not signing.is_signature_valid:
        raise ValueError("the signing request is not signed by an elliptic curve key of its own")
    issuer, issuer_key = signer(authority)
    builder = (
        x509.CertificateBuilder(issuer_name=issuer.subject, subject_name=x509.Name([]))
        .serial_number(x509.random_serial_number())
        .public_key(key)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(issuer.not_valid_after_utc)
        # Without a subject, as nobody is to take it for a user's, this must be critical.
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def certified_uri(certificate: bytes, *, bundle: bytes, now: datetime) -> str | None:
    """The URI of a client certificate (DER) that a CA of ``bundle`` (PEM) has signed; None if it is no such one."""
    try:
        store = verification.Store(x509.load_pem_x509_certificates(bundle))
        verifier = verification.PolicyBuilder().store(store).time(now).build_client_verifier()
        subjects = verifier.verify(x509.load_der_x509_certificate(certificate), []).subjects or []
    except (ValueError, verification.VerificationError):
        return None
    uris = [name.value for name in subjects if isinstance(name, x509.UniformResourceIdentifier)]
    return uris[0] if len(uris) == len(subjects) == 1 else None
