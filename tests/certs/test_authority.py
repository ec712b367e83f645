"""What we issue, as a TLS client judges it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.authority import KeyPair, issue_authority, issue_leaf

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("velda-apiserver-webhook.velda.svc", "velda-apiserver-webhook.velda.svc.corp.example")


def verify(leaf: KeyPair, authority: KeyPair, *, name: str, when: datetime = NOW) -> None:
    store = Store(x509.load_pem_x509_certificates(authority.certificate))
    verifier = PolicyBuilder().store(store).time(when).build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(leaf.certificate), [])


@pytest.mark.parametrize(
    "name", ["velda-apiserver-webhook.velda.svc", "velda-apiserver-webhook.velda.svc.corp.example"]
)
def test_a_leaf_verifies_for_each_name_of_the_service(name: str) -> None:
    authority = issue_authority(now=NOW)
    leaf = issue_leaf(authority, names=NAMES, now=NOW)
    verify(leaf, authority, name=name)
    verify(leaf, authority, name=name, when=NOW - timedelta(minutes=59))
    verify(leaf, authority, name=name, when=NOW + timedelta(days=89, hours=23))


def test_a_leaf_does_not_verify_for_others_or_later_or_by_another_authority() -> None:
    authority = issue_authority(now=NOW)
    leaf = issue_leaf(authority, names=NAMES, now=NOW)
    with pytest.raises(VerificationError):
        verify(leaf, authority, name="velda-apiserver-webhook.other.svc")
    with pytest.raises(VerificationError):
        verify(leaf, authority, name=NAMES[0], when=NOW + timedelta(days=90, seconds=1))
    with pytest.raises(VerificationError):
        verify(leaf, issue_authority(now=NOW), name=NAMES[0])


def test_lives_and_kinds_of_keys() -> None:
    authority = issue_authority(now=NOW)
    issued = [
        x509.load_pem_x509_certificate(pair.certificate)
        for pair in (authority, issue_leaf(authority, names=NAMES, now=NOW))
    ]
    assert [certificate.not_valid_after_utc - NOW for certificate in issued] == [
        timedelta(days=3650),
        timedelta(days=90),
    ]
    assert {NOW - certificate.not_valid_before_utc for certificate in issued} == {timedelta(hours=1)}
    for certificate in issued:
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"


def test_an_address_becomes_an_ip_name() -> None:
    leaf = issue_leaf(issue_authority(now=NOW), names=["localhost", "127.0.0.1"], now=NOW)
    names = x509.load_pem_x509_certificate(leaf.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(address) for address in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]


def test_a_key_is_never_printed() -> None:
    assert "PRIVATE" not in repr(issue_authority(now=NOW))
