"""How an agent's pod gets its certificate: from our HTTPS server, for the pod's token."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from app.agent import certificate
from app.api import agents
from app.broker.reports import Reports
from app.kube.errors import ApiUnreachable
from certs.agents import certified_uri
from certs.authority import issue_authority
from tests.agent.issuing import AUTHORITY, NOW, Pod, review, serving
from tests.support.limits import refusals


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    monkeypatch.setattr(certificate, "RETRY", 0.01)
    monkeypatch.setattr(agents, "reports", Reports())
    return Pod(tmp_path)


async def test_the_certificate_is_the_tokens_pods_and_the_key_its_owners_alone(pod: Pod) -> None:
    async with serving() as url:
        assert await pod.ask(url) == 0
        assert await pod.ask(url) == 0  # the container was started again
    issued = x509.load_pem_x509_certificate((pod.home / "tls.crt").read_bytes())
    key = serialization.load_pem_private_key((pod.home / "tls.key").read_bytes(), password=None)
    assert issued.public_key() == key.public_key()
    der = issued.public_bytes(serialization.Encoding.DER)
    assert certified_uri(der, bundle=AUTHORITY.certificate, now=NOW) == "velda://team/cpu-1/u-1"
    assert stat.S_IMODE((pod.home / "tls.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in pod.home.iterdir()) == ["ca.crt", "tls.crt", "tls.key", "url"]


@pytest.mark.parametrize(
    ("token", "reason", "said"),
    [("", "unauthenticated", "send the pod's token"), ("bad", "unauthenticated", "the token is not valid")],
)
async def test_without_a_good_token_there_is_none(
    pod: Pod, token: str, reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    pod.token.write_text(token)
    before = refusals(reason)
    with capture_logs() as lines:
        async with serving() as url:
            assert await pod.ask(url) == 1
    assert refusals(reason) == before + 1
    (line,) = [line for line in lines if line["event"] == "refused"]
    assert (line["call"], line["reason"], line["peer"]) == ("agent certificate", reason, "127.0.0.1")
    assert said in line["error"]
    assert f"401: {said}" in caplog.text
    assert list(pod.home.iterdir()) == []


async def test_it_is_asked_for_again_while_the_server_cannot_tell(pod: Pod) -> None:
    asked = 0

    async def slow(token: str) -> Mapping[str, Any] | None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ApiUnreachable("no answer")
        return await review(token)

    async with serving(slow) as url:
        assert await pod.ask(url, timeout=60) == 0
    assert asked == 3


async def test_a_server_without_a_ca_of_its_own_issues_none(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(authority=None) as url:
        assert await pod.ask(url) == 1
    assert "503: there is no CA of ours" in caplog.text


async def test_the_token_goes_to_no_other_server(pod: Pod) -> None:
    seen: list[str] = []

    async def spy(token: str) -> None:
        seen.append(token)

    pod.ca.write_bytes(issue_authority(now=NOW).certificate)
    async with serving(spy) as url:
        assert await pod.ask(url) == 1
    assert seen == []


@pytest.mark.parametrize("request_text", [b"nonsense", b"x" * 20_000])
async def test_what_is_no_signing_request_is_refused_for_good(pod: Pod, request_text: bytes) -> None:
    async with serving() as url:
        with pytest.raises(certificate.RefusedError, match="400: ") as refused:
            await asyncio.to_thread(certificate.ask, url, request_text, ca=pod.ca, token=pod.token)
    assert refused.value.final


async def test_a_ca_that_is_not_there_yet_is_waited_for(pod: Pod) -> None:
    pod.ca.unlink()
    async with serving() as url:
        asking = asyncio.create_task(pod.ask(url, timeout=60))
        pod.ca.write_bytes(AUTHORITY.certificate)
        assert await asking == 0


def test_the_ca_must_be_one(pod: Pod) -> None:
    pod.ca.write_text("")
    with pytest.raises(ssl.SSLError):
        certificate.ask("https://127.0.0.1:1/x", b"", ca=pod.ca, token=pod.token)
