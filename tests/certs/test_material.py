"""What is wrong with certificates, and what bundles hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.material import (
    BUNDLE_LIMIT,
    age,
    authority_fault,
    blocks,
    fault,
    fingerprint,
    good_authorities,
    issued_by,
    join,
    names_of,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("velda.example.svc", "127.0.0.1")
AUTHORITY = issue_authority(now=NOW)
LEAF = issue_leaf(AUTHORITY, names=NAMES, now=NOW)


def test_a_good_pair_has_no_fault_until_it_expires() -> None:
    assert fault(LEAF, now=NOW) is None
    assert authority_fault(AUTHORITY, now=NOW) is None
    assert fault(LEAF, now=NOW + timedelta(days=90)) == "expired at 2026-04-02 03:04 UTC"
    assert fault(LEAF, now=NOW - timedelta(hours=2)) == "not valid before 2026-01-02 02:04 UTC"


def _encrypted() -> bytes:
    return serialization.load_pem_private_key(LEAF.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        (replace(LEAF, certificate=b"garbage"), "not a PEM certificate"),
        (replace(LEAF, key=b""), "not an unencrypted PEM private key"),
        (replace(LEAF, key=_encrypted()), "not an unencrypted PEM private key"),
        (replace(LEAF, key=AUTHORITY.key), "the key does not belong to the certificate"),
    ],
)
def test_the_fault_is_named(pair: KeyPair, problem: str) -> None:
    assert fault(pair, now=NOW) == problem


def test_a_leaf_is_no_authority() -> None:
    assert authority_fault(LEAF, now=NOW) == "not a CA of ours"


def test_a_bundle_is_read_around_what_is_no_certificate() -> None:
    other = issue_authority(now=NOW - timedelta(days=3649))
    broken = AUTHORITY.certificate.replace(b"MII", b"!!!")
    bundle = b"# ours\n" + other.certificate + broken + AUTHORITY.certificate + LEAF.certificate + other.certificate
    assert len(blocks(bundle)) == 5
    assert good_authorities(bundle, now=NOW) == [other.certificate, AUTHORITY.certificate]
    assert good_authorities(bundle, now=NOW + timedelta(days=1)) == [AUTHORITY.certificate]
    assert good_authorities(b"\xff\x00", now=NOW) == []


def test_a_joined_bundle_has_each_once_and_a_limit() -> None:
    others = [issue_authority(now=NOW).certificate for _ in range(BUNDLE_LIMIT)]
    joined = blocks(join([AUTHORITY.certificate, AUTHORITY.certificate, *others]))
    assert joined == [AUTHORITY.certificate, *others[:-1]]


def test_who_issued_it_and_for_whom() -> None:
    assert issued_by(LEAF.certificate, AUTHORITY.certificate)
    assert not issued_by(LEAF.certificate, issue_authority(now=NOW).certificate)
    assert not issued_by(b"", AUTHORITY.certificate)
    assert names_of(LEAF.certificate) == set(NAMES)
    assert names_of(AUTHORITY.certificate) == set()


def test_age_is_a_share_of_its_life() -> None:
    parsed = x509.load_pem_x509_certificate(LEAF.certificate)
    assert age(LEAF.certificate, now=parsed.not_valid_before_utc) == 0
    assert age(LEAF.certificate, now=parsed.not_valid_after_utc) == 1


def test_the_fingerprint_is_openssls() -> None:
    assert len(bytes.fromhex(fingerprint(LEAF.certificate))) == 32
    assert fingerprint(LEAF.certificate) != fingerprint(AUTHORITY.certificate)
