"""What helm cannot remove: AgentPools that wait for their agents, and what was made in the pools' namespaces.

Runs in a hook of the chart: before the release goes, to delete all AgentPools while the controller can still end them
in order; or after it, to take our finalizer off AgentPools that stay, which nobody else would do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Literal

import msgspec
import structlog

from app.controller.config_maps import ConfigMap
from app.kube import paths
from app.kube.client import Client
from app.kube.config import connect
from app.kube.errors import ApiError
from app.model.meta import API_VERSION, FINALIZER, KIND, MANAGED_BY_LABEL, MANAGER, POOL_LABEL, ObjectMeta
from app.settings import Kubernetes, SettingsError

POLL = 1.0
TELL = 10.0
"""Seconds after which who waits for AgentPools to end is told how many are left."""
RELEASE_TRIES = 10
"""How often AgentPools are listed anew because they changed while the finalizer was taken off."""

log = structlog.get_logger()


class _Item(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


class _ConfigMaps(msgspec.Struct, frozen=True):
    items: tuple[ConfigMap, ...] = ()


class _List(msgspec.Struct, frozen=True):
    items: tuple[_Item, ...] = ()


def run(*, pools: Literal["delete", "release"], namespaces: Sequence[str], config_map: str, timeout: float) -> int:
    """Delete the AgentPools of ``namespaces`` (all of the cluster if empty), or release them from us; the exit code.

    ``config_map`` names the ConfigMaps to delete with the pools; empty: none.
    """
    try:
        asyncio.run(_run(pools, namespaces, config_map, timeout))
    except (ApiError, SettingsError) as error:
        log.error("uninstall failed", error=str(error))
        return 1
    return 0


async def _run(pools: Literal["delete", "release"], namespaces: Sequence[str], config_map: str, timeout: float) -> None:
    settings = Kubernetes(namespaces=list(namespaces)) if namespaces else Kubernetes(all_namespaces=True)
    async with await connect(settings) as client:
        if pools == "release":
            await release_pools(client, namespaces=settings.watched)
            return
        await delete_pools(client, namespaces=settings.watched, timeout=timeout)
        await delete_dependents(client, namespaces=settings.watched)
        if config_map:
            await delete_config_maps(client, namespaces=settings.watched, name=config_map)


async def delete_pools(client: Client, *, namespaces: Sequence[str], timeout: float) -> None:
    """Delete them and wait until they are gone; what is left after ``timeout`` seconds loses our finalizer."""
    clock = asyncio.get_running_loop().time
    deadline, due = clock() + timeout, clock() + TELL
    while pools := await _pools(client, namespaces):
        for pool in pools:
            if pool.deletion_timestamp is None:
                log.info("deleting AgentPool", pool=str(pool.key))
                await _settle(client.delete(paths.agentpool(pool.key), uid=pool.uid))
        if clock() >= due:
            seconds = round(deadline - clock())
            log.info("waiting for AgentPools to end", left=len(pools), first=str(pools[0].key), seconds_at_most=seconds)
            due = clock() + TELL
        if clock() > deadline:
            log.warning("AgentPools did not end in time", pools=[str(pool.key) for pool in pools], seconds=timeout)
            await release_pools(client, namespaces=namespaces)
            return
        await asyncio.sleep(POLL)
    log.info("no AgentPool is left")


async def release_pools(client: Client, *, namespaces: Sequence[str]) -> None:
    """Take our finalizer off all of them, and leave everything else as it is."""
    for _ in range(RELEASE_TRIES):
        held = [pool for pool in await _pools(client, namespaces) if FINALIZER in pool.finalizers]
        if not held:
            return
        for pool in held:
            log.info("releasing AgentPool", pool=str(pool.key))
            others = [name for name in pool.finalizers if name != FINALIZER]
            body = {"metadata": {"resourceVersion": pool.resource_version, "finalizers": others}}
            await _settle(client.merge_patch(paths.agentpool(pool.key), body))
    raise ApiError(409, "Conflict", f"AgentPools got the finalizer {FINALIZER} back {RELEASE_TRIES} times")


async def delete_dependents(client: Client, *, namespaces: Sequence[str]) -> None:
    """Delete what AgentPools own. The garbage collector may not get to it before the CRD goes, and then never does."""
    query = {"labelSelector": POOL_LABEL}
    for namespace in namespaces or (None,):
        for path in (paths.pods, paths.controller_revisions):
            for item in msgspec.json.decode(await client.get(path(namespace), params=query), type=_List).items:
                meta = item.metadata
                if any((owner.api_version, owner.kind) == (API_VERSION, KIND) for owner in meta.owner_references):
                    log.info("deleting what an AgentPool owned", name=str(meta.key))
                    await _settle(client.delete(f"{path(meta.namespace)}/{meta.name}", uid=meta.uid))


async def delete_config_maps(client: Client, *, namespaces: Sequence[str], name: str) -> None:
    """Delete the ConfigMaps ``name`` that the controller made; one that a user made is never touched."""
    # With the name in the field selector, RBAC can grant this list for that name alone.
    query = {"fieldSelector": f"metadata.name={name}", "labelSelector": f"{MANAGED_BY_LABEL}={MANAGER}"}
    for namespace in namespaces or (None,):
        path = paths.config_maps(namespace)
        for item in msgspec.json.decode(await client.get(path, params=query), type=_ConfigMaps).items:
            if not item.ours:
                continue
            log.info("deleting ConfigMap", config_map=str(item.metadata.key))
            await _settle(client.delete(paths.config_map(item.metadata.key), uid=item.metadata.uid))


async def _pools(client: Client, namespaces: Sequence[str]) -> list[ObjectMeta]:
    """None where there is no CRD any more."""
    found: list[ObjectMeta] = []
    for namespace in namespaces or (None,):
        try:
            body = await client.get(paths.agentpools(namespace))
        except ApiError as error:
            if not error.not_found:
                raise
        else:
            found += [item.metadata for item in msgspec.json.decode(body, type=_List).items]
    return found


async def _settle(request: Awaitable[bytes]) -> None:
    """Whoever was faster made another object of it, or none: the next list shows which."""
    try:
        await request
    except ApiError as error:
        if not (error.not_found or error.conflict):
            raise
