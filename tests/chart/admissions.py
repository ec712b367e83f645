"""AgentPools that are written all the time, by dry run, while something is done to the webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp

from tests.support.api import Api, RequestError
from tests.support.cluster import Cluster

WRITERS = 4
PAUSE = 0.03
"""Seconds from an answer to the writer's next request: some eighty a second together, if answers are quick."""


@contextlib.contextmanager
def admissions(cluster: Cluster, *, namespace: str, manifest: dict[str, Any]) -> Iterator[None]:
    """For as long as the block lasts; at its end each must have been let through, and there must be some."""
    over, answers = threading.Event(), list[str]()
    thread = threading.Thread(target=lambda: asyncio.run(_write(cluster, namespace, manifest, over, answers)))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    failed = [answer for answer in answers if answer]
    assert answers
    assert not failed, f"{len(failed)} of {len(answers)} failed: {failed[:3]}"


async def _write(
    cluster: Cluster, namespace: str, manifest: dict[str, Any], over: threading.Event, answers: list[str]
) -> None:
    path = f"/apis/velda.io/v1/namespaces/{namespace}/agentpools?dryRun=All"

    async def write() -> None:
        while not over.is_set():
            try:
                await api.create(path, manifest)
                answers.append("")
            except (RequestError, aiohttp.ClientError) as error:
                answers.append(str(error))
            await asyncio.sleep(PAUSE)

    async with Api(cluster.kubeconfig) as api:
        await asyncio.gather(*(write() for _ in range(WRITERS)))
