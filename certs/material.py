"""What the Secret holds, read with suspicion: anybody may have written it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import KeyPair

BUNDLE_LIMIT = 4
"""CAs in a bundle, the newest first; more than two are there only after an accident."""
DER = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Material:
    """All that the Secret holds: what we serve with, the CAs that clients verify it by (``bundle``, the one that signs
    first), and that CA with its key.
    """

    leaf: KeyPair
    bundle: bytes
    authority: KeyPair


def blocks(bundle: bytes) -> list[bytes]:
    """The certificates of a bundle, each PEM; what is around them is left out, and none is parsed."""
    return [block + b"\n" for block in BLOCK.findall(bundle)]


def good_authorities(bundle: bytes, *, now: datetime) -> list[bytes]:
    """Those of the bundle that are CAs, whoever's, and in time, each once."""
    return [block for block in dict.fromkeys(blocks(bundle)) if _is_good_authority(block, now=now)]


def fault(pair: KeyPair, *, now: datetime) -> str | None:
    """Why the pair cannot be used at ``now``; None when it can."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
    except ValueError:
        return "not a PEM certificate"
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        return "not an unencrypted PEM private key"
    if certificate.public_key().public_bytes(*DER) != key.public_key().public_bytes(*DER):
        return "the key does not belong to the certificate"
    return _untimely(certificate, now=now)


def authority_fault(authority: KeyPair, *, now: datetime) -> str | None:
    """Why it cannot sign at ``now``; None when it can."""
    if problem := fault(authority, now=now):
        return problem
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    ours = _may_sign(certificate) and isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    return None if ours else "not a CA of ours"


def issued_by(leaf: bytes, authority: bytes) -> bool:
    """Both PEM, and readable."""
    try:
        x509.load_pem_x509_certificate(leaf).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names_of(certificate: bytes) -> set[str]:
    """The DNS names and addresses that the certificate (PEM, readable) is for."""
    try:
        extensions = x509.load_pem_x509_certificate(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def age(certificate: bytes, *, now: datetime) -> float:
    """How much of its life is over: 0 when it was issued, 1 when it expires. PEM, readable."""
    parsed = x509.load_pem_x509_certificate(certificate)
    return (now - parsed.not_valid_before_utc) / (parsed.not_valid_after_utc - parsed.not_valid_before_utc)


def expiry(certificate: bytes) -> datetime:
    """PEM, readable."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the certificate (PEM, readable), as ``openssl x509 -fingerprint -sha256`` shows it but for colons."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def join(authorities: Sequence[bytes]) -> bytes:
    """One bundle of them, each once."""
    return b"".join(list(dict.fromkeys(authorities))[:BUNDLE_LIMIT])


def _is_good_authority(block: bytes, *, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(block)
    except ValueError:
        return False
    return _may_sign(certificate) and _untimely(certificate, now=now) is None


def _untimely(certificate: x509.Certificate, *, now: datetime) -> str | None:
    if now < certificate.not_valid_before_utc:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    if now >= certificate.not_valid_after_utc:
        return f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return None


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
