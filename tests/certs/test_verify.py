"""What a client would say of our certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import issue_authority, issue_leaf
from certs.serving import load
from certs.verify import refusal

NAME = "velda-apiserver-webhook.velda.svc"
NOW = datetime.now(UTC)
AUTHORITY = issue_authority(now=NOW - timedelta(days=100))
SERVER = load(issue_leaf(AUTHORITY, names=[NAME, "127.0.0.1"], now=NOW))


def test_it_is_taken_where_chain_name_and_time_are_right() -> None:
    bundle = issue_authority(now=NOW).certificate + AUTHORITY.certificate
    assert refusal(SERVER, host=NAME, bundle=bundle) is None
    assert refusal(SERVER, host="127.0.0.1", bundle=bundle) is None


@pytest.mark.parametrize(
    ("host", "bundle", "why"),
    [
        (NAME, issue_authority(now=NOW).certificate, "unable to get local issuer certificate"),
        ("other.velda.svc", AUTHORITY.certificate, "Hostname mismatch"),
        ("127.0.0.2", AUTHORITY.certificate, "IP address mismatch"),
        (NAME, b"", "there is no CA to trust"),
        (NAME, b"garbage", "does not contain a certificate"),
        (NAME, b"\xff", "no PEM"),
        ("", AUTHORITY.certificate, "server_hostname cannot be an empty string"),
    ],
)
def test_the_reason_is_named(host: str, bundle: bytes, why: str) -> None:
    assert why in (refusal(SERVER, host=host, bundle=bundle) or "")


@pytest.mark.parametrize(("age", "why"), [(timedelta(days=91), "has expired"), (timedelta(hours=-2), "not yet valid")])
def test_time_is_the_clients(age: timedelta, why: str) -> None:
    untimely = load(issue_leaf(AUTHORITY, names=[NAME], now=NOW - age))
    assert why in (refusal(untimely, host=NAME, bundle=AUTHORITY.certificate) or "")
