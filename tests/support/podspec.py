"""A container's environment, arguments and files as kubelet makes them from the pod."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path
from typing import Any

from tests.support.api import Api, Object, RequestError

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_TOKEN_SECONDS = 3607


class PodSpecError(Exception):
    """The pod asks for something that does not exist, or that this stage cannot do."""


class PodFiles:
    """The volumes of one pod as directories; the service-account token is a real, bound one."""

    def __init__(self, api: Api, pod: Object, directory: Path) -> None:
        self._api = api
        self._pod = pod
        self._namespace = pod["metadata"]["namespace"]
        self._directory = directory
        self._tokens: dict[Path, str | None] = {}

    async def volumes(self) -> dict[str, Path]:
        """Volume name → directory, filled."""
        made = {}
        for volume in self._pod["spec"].get("volumes", []):
            made[volume["name"]] = path = self._directory / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            if "emptyDir" not in volume:
                await self._fill(path, volume)
        return made

    async def environment(self, container: Object) -> dict[str, str]:
        """``env`` in its order, each value with the references to earlier ones expanded."""
        made: dict[str, str] = {}
        if container.get("envFrom"):
            raise PodSpecError("envFrom is not known to this stage")
        for entry in container.get("env", []):
            value = await self._value(entry["valueFrom"]) if "valueFrom" in entry else entry.get("value", "")
            made[entry["name"]] = expand(value, made)
        return made

    async def _fill(self, path: Path, volume: Object) -> None:
        if "configMap" in volume:
            await self._write_object(path, "configmaps", volume["configMap"]["name"], volume["configMap"])
        elif "secret" in volume:
            await self._write_object(path, "secrets", volume["secret"]["secretName"], volume["secret"])
        elif "projected" in volume:
            for source in volume["projected"]["sources"]:
                await self._project(path, source)
        else:
            raise PodSpecError(f"volume {volume['name']}: only configMap, secret, projected and emptyDir are known")

    async def _project(self, path: Path, source: Object) -> None:
        ((kind, content),) = source.items()
        if kind == "serviceAccountToken":
            self._tokens[path / content["path"]] = content.get("audience")
            await self._write_token(path / content["path"], content.get("audience"))
        elif kind in ("configMap", "secret"):
            await self._write_object(path, f"{kind.lower()}s", content["name"], content)
        elif kind == "downwardAPI":
            for item in content["items"]:
                (path / item["path"]).write_text(self._field(item["fieldRef"]["fieldPath"]))
        else:
            raise PodSpecError(f"a projected {kind} is not known to this stage")

    async def renew_tokens(self) -> None:
        """For ever, at 80 % of their life."""
        while True:
            await asyncio.sleep(0.8 * _TOKEN_SECONDS)
            for path, audience in self._tokens.items():
                await self._write_token(path, audience)

    async def _write_token(self, path: Path, audience: str | None) -> None:
        metadata = self._pod["metadata"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec: Object = {"expirationSeconds": _TOKEN_SECONDS, "boundObjectRef": reference}
        spec["audiences"] = [audience] if audience else ["https://kubernetes.default.svc"]
        account = self._pod["spec"]["serviceAccountName"]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._api.create(f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token", body)
        aside = path.with_name(f".{path.name}")
        aside.write_text(answer["status"]["token"])
        aside.rename(path)

    async def _write_object(self, path: Path, resource: str, name: str, source: Object) -> None:
        data = await self._data(resource, name, optional=source.get("optional", False))
        paths = {item["key"]: item["path"] for item in source["items"]} if "items" in source else {k: k for k in data}
        for key, where in paths.items():
            if key not in data:
                raise PodSpecError(f"{resource} {name} has no key {key}")
            target = path / where
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data[key])

    async def _data(self, resource: str, name: str, *, optional: bool) -> dict[str, bytes]:
        try:
            found = await self._api.get(f"/api/v1/namespaces/{self._namespace}/{resource}/{name}")
        except RequestError as error:
            if error.status == 404 and optional:
                return {}
            raise PodSpecError(f'{resource} "{name}" not found' if error.status == 404 else str(error)) from error
        data = {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}
        for key, value in found.get("data", {}).items():
            data[key] = base64.b64decode(value) if resource == "secrets" else value.encode()
        return data

    async def _value(self, source: Object) -> str:
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for kind, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if kind in source:
                reference = source[kind]
                optional = reference.get("optional", False)
                data = await self._data(resource, reference["name"], optional=optional)
                if reference["key"] not in data and not optional:
                    raise PodSpecError(f"{resource} {reference['name']} has no key {reference['key']}")
                return data.get(reference["key"], b"").decode()
        raise PodSpecError(f"a value from {next(iter(source))} is not known to this stage")

    def _field(self, path: str) -> str:
        value: Any = self._pod
        for part in path.split("."):
            value = value.get(part, "")
        return str(value)


def expand(text: str, values: dict[str, str]) -> str:
    """``$(NAME)`` as Kubernetes has it: an unknown name stays, ``$$`` is a dollar."""

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else values.get(found[1], found[0])

    return _REFERENCE.sub(one, text)
