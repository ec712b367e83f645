"""What is due, from the Secret's content and the time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.rotation import NOTHING, Material, due, fault, issue

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("velda.example.svc", "127.0.0.1")


@pytest.fixture
def fresh() -> Material:
    return issue(None, "everything", names=NAMES, now=NOW)


@pytest.mark.parametrize("days", [0, 30, 59])
def test_nothing_is_due_in_the_first_two_thirds(fresh: Material, days: int) -> None:
    assert due(fresh, names=NAMES, now=NOW + timedelta(days=days)) == NOTHING


def test_the_leaf_is_due_after_two_thirds_and_the_authority_stays(fresh: Material) -> None:
    later = NOW + timedelta(days=60)
    verdict = due(fresh, names=NAMES, now=later)
    assert (verdict.what, verdict.fault) == ("leaf", False)
    renewed = issue(fresh, "leaf", names=NAMES, now=later)
    assert (renewed.bundle, renewed.authority) == (fresh.bundle, fresh.authority)
    assert renewed.leaf != fresh.leaf
    assert due(renewed, names=NAMES, now=later) == NOTHING


def test_other_names_make_the_leaf_due(fresh: Material) -> None:
    assert due(fresh, names=("other.example.svc",), now=NOW).what == "leaf"
    assert due(fresh, names=tuple(reversed(NAMES)), now=NOW) == NOTHING


def test_an_authority_that_would_not_outlive_a_leaf_is_due(fresh: Material) -> None:
    verdict = due(fresh, names=NAMES, now=NOW + timedelta(days=3561))
    assert (verdict.what, verdict.fault) == ("everything", False)


def _spoiled(fresh: Material) -> dict[str, tuple[Material, str, str]]:
    stranger = issue_authority(now=NOW)
    foreign = issue_leaf(stranger, names=NAMES, now=NOW)
    no_authority = replace(fresh, bundle=foreign.certificate, authority=foreign)
    encrypted = serialization.load_pem_private_key(fresh.leaf.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return {
        "unparsable": (replace(fresh, leaf=KeyPair(b"garbage", fresh.leaf.key)), "leaf", "not a PEM certificate"),
        "no key": (replace(fresh, leaf=KeyPair(fresh.leaf.certificate, b"")), "leaf", "not an unencrypted"),
        "encrypted": (replace(fresh, leaf=KeyPair(fresh.leaf.certificate, encrypted)), "leaf", "not an unencrypted"),
        "mismatch": (replace(fresh, leaf=KeyPair(fresh.leaf.certificate, foreign.key)), "leaf", "does not belong"),
        "another CA's": (replace(fresh, leaf=foreign), "leaf", "did not sign"),
        "CA unparsable": (replace(fresh, authority=KeyPair(b"", fresh.authority.key)), "everything", "ca.crt, ca.key"),
        "CA mismatch": (
            replace(fresh, authority=KeyPair(fresh.bundle, stranger.key)),
            "everything",
            "does not belong",
        ),
        "a leaf for a CA": (no_authority, "everything", "not a CA"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "unparsable",
        "no key",
        "encrypted",
        "mismatch",
        "another CA's",
        "CA unparsable",
        "CA mismatch",
        "a leaf for a CA",
    ],
)
def test_what_cannot_be_used_is_due_with_its_reason(fresh: Material, case: str) -> None:
    material, what, reason = _spoiled(fresh)[case]
    verdict = due(material, names=NAMES, now=NOW)
    assert (verdict.what, verdict.fault) == (what, True)
    assert reason in verdict.reason
    assert due(issue(material, verdict.what, names=NAMES, now=NOW), names=NAMES, now=NOW) == NOTHING  # type: ignore[arg-type]


def test_expired_and_not_yet_valid(fresh: Material) -> None:
    assert "expired at 2026-04-02" in due(fresh, names=NAMES, now=NOW + timedelta(days=90)).reason
    assert "not valid before 2026-01-02" in (fault(fresh.leaf, now=NOW - timedelta(hours=2)) or "")


def test_a_leaf_never_outlives_its_authority() -> None:
    authority = issue_authority(now=NOW)
    leaf = issue_leaf(authority, names=NAMES, now=NOW + timedelta(days=3600))
    lives = [x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc for pair in (authority, leaf)]
    assert lives[0] == lives[1]
