"""Our own PKI: issues a CA and the server certificates that it signs; time is an argument, so that tests choose it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
BACKDATE = timedelta(hours=1)
"""How far the clock of a peer may be behind ours."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate (or a chain of them, the own one first) and its private key, both PEM; the key is never printed."""

    certificate: bytes
    key: bytes = field(repr=False)


def issue_authority(*, now: datetime) -> KeyPair:
    """A new CA that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name tells two CAs of ours apart while a bundle carries both.
    serial = x509.random_serial_number()
    subject = _name(f"velda-apiserver CA {serial:x}"[:64])
    builder = (
        x509.CertificateBuilder(issuer_name=subject, subject_name=subject, serial_number=serial)
        .public_key(key.public_key())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue_leaf(authority: KeyPair, *, names: Sequence[str], now: datetime) -> KeyPair:
    """A server certificate for DNS names and IP addresses; ValueError when ``authority`` cannot sign it."""
    issuer, issuer_key = signer(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(issuer_name=issuer.subject, subject_name=_name(names[0][:64]))
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + LEAF_LIFE, issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def signer(authority: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The CA's certificate and key; ValueError when it cannot sign."""
    key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA's key is not an elliptic curve key")
    return x509.load_pem_x509_certificate(authority.certificate), key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
