"""The real API server before our webhooks: what it makes of any text is answered, and what it takes can be reconciled.

Its schema and ours need not refuse the same: what only one of them refuses is refused. That no pool passes both and
then cannot be reconciled is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from app.model.agentpool import PoolSpec
from tests.fuzz import documents
from tests.fuzz.mutations import texts
from tests.fuzz.test_pools import judge
from tests.support.api import credentials
from tests.support.cluster import Cluster
from tests.webhook.serving import registered, serving

ANY = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The administrator's connection to an API server that asks our webhooks."""
    server, context = credentials(cluster.kubeconfig)
    with (
        serving(cluster, tmp_path_factory.mktemp("fuzz")) as served,
        registered(cluster, served),
        httpx.Client(base_url=server, verify=context, trust_env=False, timeout=30) as client,
    ):
        yield client


def create(api: httpx.Client, path: str, text: str) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    answer = api.post(path, params={"dryRun": "All"}, content=text.encode(), headers=headers)
    assert answer.status_code in (201, 400, 403, 404, 413, 422), answer.text
    assert "failed calling webhook" not in answer.text
    return answer


def test_a_pool_that_is_taken_can_be_reconciled(api: httpx.Client) -> None:
    taken = refused = 0

    @ANY
    @given(text=texts(documents.pool(), keys=documents.KEYS))
    def check(text: str) -> None:
        nonlocal taken, refused
        answer = create(api, "/apis/velda.io/v1/namespaces/default/agentpools", text)
        if answer.status_code == 201:
            taken += 1
            assert isinstance(judge(answer.text), PoolSpec)
        else:
            refused += 1

    check()
    assert taken > 5
    assert refused > 5


def test_a_labelled_pod_is_taken_or_refused_and_never_stuck(api: httpx.Client) -> None:
    @ANY
    @given(text=texts(documents.pod(), keys=documents.KEYS))
    def check(text: str) -> None:
        create(api, "/api/v1/namespaces/default/pods", text)

    check()
