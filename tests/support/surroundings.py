"""What a worker pod's agent finds around it: its velda.yaml, its --pool, and cluster DNS."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from app.agent.config import AgentConfig, load
from tests.support.api import Api, Object, RequestError

_MOUNT = "/run/velda"
_KEY = "velda.yaml"
_CLUSTER_NAME = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)(?:\.svc(?:\.cluster\.local)?)?")
_REMEMBERED = 2.0
"""Seconds that an answer is good for: a thousand pods that start together ask once."""


class NotYetError(Exception):
    """Something is missing; the text is what kubelet or the agent would say."""


class Surroundings:
    """Answers for all worker pods, from few requests."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: dict[str, tuple[float, asyncio.Task[Object]]] = {}

    async def config(self, pod: Object) -> AgentConfig:
        """The velda.yaml of the ConfigMap at /run/velda; NotYetError, ConfigError."""
        name, namespace = _config_map(pod), pod["metadata"]["namespace"]
        found = await self._get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        text = found.get("data", {}).get(_KEY)
        if text is None:
            raise NotYetError(f"ConfigMap {name} has no key {_KEY}")
        with tempfile.NamedTemporaryFile("w", suffix=_KEY) as file:
            file.write(text)
            file.flush()
            return load(Path(file.name))

    async def resolve(self, address: str) -> tuple[str, int]:
        """What a dial of ``host:port`` reaches; Services by the names that cluster DNS gives them."""
        host, _, port = address.rpartition(":")
        named = _CLUSTER_NAME.fullmatch(host)
        if named is None or host.replace(".", "").isdigit():
            return host, int(port)
        service = await self._get(f"/api/v1/namespaces/{named[2]}/services/{named[1]}")
        if service["spec"]["type"] == "ExternalName":
            return await self.resolve(f"{service['spec']['externalName']}:{port}")
        return service["spec"]["clusterIP"], int(port)

    async def _get(self, path: str) -> Object:
        now = asyncio.get_running_loop().time()
        since, answer = self._answers.get(path, (now - 2 * _REMEMBERED, None))
        if answer is None or now - since > _REMEMBERED:
            answer = asyncio.create_task(self._api.get(path))
            self._answers[path] = now, answer
        try:
            return await asyncio.shield(answer)
        except RequestError as error:
            raise NotYetError(str(error)) from error


def pool_argument(pod: Object) -> str:
    """The value of --pool in the agent's arguments; empty when there is none."""
    container = _agent_container(pod)
    arguments = [*container.get("command", []), *container.get("args", [])]
    for number, argument in enumerate(arguments):
        if argument.startswith("--pool="):
            return str(argument.removeprefix("--pool="))
        if argument == "--pool" and number + 1 < len(arguments):
            return str(arguments[number + 1])
    return ""


def _config_map(pod: Object) -> str:
    mounts = {mount["mountPath"].rstrip("/"): mount["name"] for mount in _agent_container(pod).get("volumeMounts", [])}
    for volume in pod["spec"].get("volumes", []):
        if volume["name"] == mounts.get(_MOUNT) and "configMap" in volume:
            return str(volume["configMap"]["name"])
    raise NotYetError(f"no ConfigMap is mounted at {_MOUNT}")


def _agent_container(pod: Object) -> Object:
    containers: list[Object] = pod["spec"]["containers"]
    return next((container for container in containers if container["name"] == "agent"), containers[0])
