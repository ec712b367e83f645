"""Certificates of agents: whose key, which pod, whose CA."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certs.agents import certified_uri, issue_agent, pod_uri
from certs.authority import issue_authority, issue_leaf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY, OTHER = issue_authority(now=NOW), issue_authority(now=NOW)
URI = pod_uri(namespace="default", name="cpu-1", uid="u-1")
PEM = serialization.Encoding.PEM


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    """One that asks for more than it gets."""
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:admin")]))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(PEM)


def issued(text: bytes | None = None) -> bytes:
    pem = issue_agent(AUTHORITY, request=text or request(), uri=URI, now=NOW)
    return ssl.PEM_cert_to_DER_cert(pem.decode())


def test_it_is_the_pods_and_nothing_but_the_key_is_taken_from_the_request() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_der_x509_certificate(issued(request(key)))
    assert certificate.public_key() == key.public_key()
    assert list(certificate.subject) == []
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    authority = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    assert certificate.not_valid_after_utc == authority.not_valid_after_utc


def test_who_signed_it_is_asked_of_every_ca_of_the_bundle() -> None:
    certificate = issued()
    assert certified_uri(certificate, bundle=OTHER.certificate + AUTHORITY.certificate, now=NOW) == URI
    assert URI == "velda://default/cpu-1/u-1"
    for bundle in (OTHER.certificate, b"", b"nonsense"):
        assert certified_uri(certificate, bundle=bundle, now=NOW) is None


def test_what_is_not_an_agents_or_not_in_time_counts_for_nothing() -> None:
    leaf = ssl.PEM_cert_to_DER_cert(issue_leaf(AUTHORITY, names=["velda.svc"], now=NOW).certificate.decode())
    for certificate in (leaf, ssl.PEM_cert_to_DER_cert(AUTHORITY.certificate.decode()), b"", b"nonsense"):
        assert certified_uri(certificate, bundle=AUTHORITY.certificate, now=NOW) is None
    late = NOW + timedelta(days=3651)
    assert certified_uri(issued(), bundle=AUTHORITY.certificate, now=late) is None


def test_bad_requests_are_refused() -> None:
    good = request()
    broken = x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER)
    tampered = broken[:-1] + bytes([broken[-1] ^ 1])
    pem = x509.load_der_x509_csr(tampered).public_bytes(PEM)
    weak = request(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    for text in (b"", b"nonsense", pem, weak):
        with pytest.raises(ValueError, match=r".+"):
            issue_agent(AUTHORITY, request=text, uri=URI, now=NOW)
