"""Who a client is and what it may do, by answers of an API server that a test makes up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.broker.access import Caller, Credentials, Right
from app.broker.rbac import AUDIENCE, Rbac
from app.broker.refusal import Reason, RefusedError
from app.broker.tokens import LIMIT as TOKEN_LIMIT
from app.kube.client import Client
from app.settings import Clients
from tests.kube.faults import FaultServer, answer, failure
from tests.support.pki import Pki

ADA = Caller(username="ada", uid="7", groups=("devs", "system:authenticated"), extra=(("scopes", ("a", "b")),))
USER = {"username": "ada", "uid": "7", "groups": ["devs", "system:authenticated"], "extra": {"scopes": ["a", "b"]}}
GET = Right("get", "default", "cpu")


class Reviews:
    """An API server that takes the token ``good``, and lets do what ``allowed`` says."""

    def __init__(self) -> None:
        self.allowed = False
        self.down = False
        self.now = 0.0
        self.specs: list[dict[str, object]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        spec = (await request.json())["spec"]
        self.specs.append(spec)
        if self.down:
            return failure(500)
        if request.path.endswith("tokenreviews"):
            good = spec["token"] == "good"
            return answer({"status": {"authenticated": good, "user": USER if good else {}}}, status=201)
        return answer({"status": {"allowed": self.allowed}}, status=201)


@pytest.fixture
def reviews() -> Reviews:
    return Reviews()


@pytest.fixture
async def client(reviews: Reviews) -> AsyncIterator[Client]:
    async with FaultServer(reviews) as server, server.client() as client:
        yield client


@pytest.fixture
def rbac(client: Client, reviews: Reviews) -> Rbac:
    return Rbac(client, Clients(), clock=lambda: reviews.now)


async def refusal(rbac: Rbac, credentials: Credentials) -> tuple[Reason, str]:
    with pytest.raises(RefusedError) as raised:
        await rbac.identify(credentials)
    return raised.value.reason, raised.value.message


async def test_a_caller_is_all_that_the_api_server_says(rbac: Rbac, reviews: Reviews) -> None:
    assert await rbac.identify(Credentials(token="good")) == ADA
    await rbac.allows(ADA, GET)
    who = {"user": "ada", "uid": "7", "groups": ["devs", "system:authenticated"], "extra": {"scopes": ["a", "b"]}}
    what = {"verb": "get", "group": "velda.io", "resource": "agentpools", "subresource": ""}
    assert reviews.specs == [
        {"token": "good"},
        {**who, "resourceAttributes": {**what, "namespace": "default", "name": "cpu"}},
    ]


async def test_a_token_is_asked_about_again_after_seconds(rbac: Rbac, reviews: Reviews) -> None:
    for now, asked in ((0.0, 1), (9.9, 1), (10.0, 2)):
        reviews.now = now
        await rbac.identify(Credentials(token="good"))
        assert len(reviews.specs) == asked
    for now, asked in ((10.0, 3), (11.9, 3), (12.0, 4)):
        reviews.now = now
        reason, message = await refusal(rbac, Credentials(token="bad"))
        assert (reason, len(reviews.specs)) == (Reason.UNAUTHENTICATED, asked)
        assert "kubectl create token" in message


async def test_a_right_is_asked_about_again_after_seconds(rbac: Rbac, reviews: Reviews) -> None:
    assert not await rbac.allows(ADA, GET)
    reviews.allowed = True
    reviews.now = 1.9
    assert not await rbac.allows(ADA, GET)
    reviews.now = 2.0
    assert await rbac.allows(ADA, GET)
    reviews.allowed = False
    reviews.now = 11.9
    assert await rbac.allows(ADA, GET)
    assert not await rbac.allows(Caller(username="bob"), GET)
    assert not await rbac.allows(ADA, Right("list", "default"))
    reviews.now = 12.0
    assert not await rbac.allows(ADA, GET)


async def test_many_at_once_are_one_review(rbac: Rbac, reviews: Reviews) -> None:
    await asyncio.gather(*(rbac.identify(Credentials(token="good")) for _ in range(50)))
    await asyncio.gather(*(rbac.allows(ADA, GET) for _ in range(50)))
    assert len(reviews.specs) == 2


async def test_what_cannot_be_asked_is_neither_yes_nor_no(rbac: Rbac, reviews: Reviews) -> None:
    reviews.down = True
    reason, message = await refusal(rbac, Credentials(token="secret"))
    assert reason is Reason.NOT_CHECKED
    assert "secret" not in message
    with pytest.raises(RefusedError) as raised:
        await rbac.allows(ADA, GET)
    assert raised.value.reason is Reason.NOT_CHECKED
    assert 'whether user "ada" may get agentpools.velda.io "cpu"' in raised.value.message
    reviews.down = False
    assert not await rbac.allows(ADA, GET)


@pytest.mark.parametrize(("token", "said"), [("", "kubectl create token"), ("x" * (TOKEN_LIMIT + 1), "longer than")])
async def test_what_is_no_token_is_not_asked_about(rbac: Rbac, reviews: Reviews, token: str, said: str) -> None:
    reason, message = await refusal(rbac, Credentials(token=token))
    assert reason is Reason.UNAUTHENTICATED
    assert said in message
    assert not reviews.specs


@pytest.mark.parametrize(
    ("claims", "asked"),
    [
        (b'{"aud": ["velda-apiserver"]}', True),
        (b'{"aud": "velda-apiserver"}', True),
        (b'{"aud": ["https://kubernetes.default.svc"]}', False),
        (b'{"aud": 7}', False),
        (b"[" * 5000, False),
        (b"\xff", False),
    ],
)
async def test_a_token_for_us_alone_is_reviewed_as_such(
    rbac: Rbac, reviews: Reviews, claims: bytes, asked: bool
) -> None:
    token = f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s"
    assert (await refusal(rbac, Credentials(token=token)))[0] is Reason.UNAUTHENTICATED
    assert reviews.specs == [{"token": token, **({"audiences": [AUDIENCE]} if asked else {})}]


def test_credentials_show_nothing_of_themselves() -> None:
    assert "good" not in repr(Credentials(token="good"))


def der(pair: tuple[Path, Path]) -> bytes:
    return x509.load_pem_x509_certificate(pair[0].read_bytes()).public_bytes(Encoding.DER)


async def test_a_certificate_names_user_and_groups(rbac: Rbac, reviews: Reviews, tmp_path: Path) -> None:
    shown = der(Pki(tmp_path).issue_client("c", user="ada", group="devs"))
    caller = await rbac.identify(Credentials(certificate=shown))
    assert caller == Caller(username="ada", groups=("devs", "system:authenticated"))
    assert not reviews.specs
    # A token is the better word, also a bad one.
    assert (await refusal(rbac, Credentials(token="bad", certificate=shown)))[0] is Reason.UNAUTHENTICATED


async def test_a_certificate_that_says_nothing_is_refused(client: Client, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    later = Rbac(client, Clients(), now=lambda: datetime.now(UTC) + timedelta(days=31))
    for rbac, shown, said in (
        (later, der(pki.issue_client("c", user="ada")), "has expired"),
        (Rbac(client, Clients()), b"garbage", "cannot be read"),
        (Rbac(client, Clients()), der(pki.issue_client("d", user=" ")), "has no common name"),
    ):
        reason, message = await refusal(rbac, Credentials(certificate=shown))
        assert reason is Reason.UNAUTHENTICATED
        assert said in message
