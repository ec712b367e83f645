"""A pod's status as kubelet writes it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from tests.support.api import STRATEGIC, Api, Object, RequestError


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PodStatus:
    """Of a pod with one container; a pod that is gone is no error."""

    def __init__(self, api: Api, pod: Object, container: Object) -> None:
        metadata = pod["metadata"]
        self._api = api
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        self._uid = metadata["uid"]
        self._address = pod["status"]["podIP"]
        self._container = container
        self._conditions: dict[str, tuple[bool, str]] = {}
        self._start = now()
        self.restarts = 0

    async def report(self, *, ready: bool, **state: Object) -> None:
        """``state`` is one of running, waiting, terminated."""
        container: dict[str, Any] = {
            "name": self._container["name"],
            "image": self._container["image"],
            "ready": ready,
            "started": "running" in state,
            "restartCount": self.restarts,
            "state": dict.fromkeys(("running", "waiting", "terminated")) | state,
        }
        await self._patch(
            {
                "phase": "Pending" if "waiting" in state else "Running",
                "startTime": self._start,
                "podIP": self._address,
                "podIPs": [{"ip": self._address}],
                "conditions": self._all_conditions(ready=ready),
                "containerStatuses": [container],
            }
        )

    async def finish(self, *, succeeded: bool) -> None:
        await self._patch({"phase": "Succeeded" if succeeded else "Failed"})

    def _all_conditions(self, *, ready: bool) -> list[Object]:
        wanted = {"Initialized": True, "ContainersReady": ready, "Ready": ready}
        for kind, value in wanted.items():
            if self._conditions.get(kind, (None, ""))[0] is not value:
                self._conditions[kind] = (value, now())
        return [
            {"type": kind, "status": str(value), "lastTransitionTime": since}
            for kind, (value, since) in self._conditions.items()
        ]

    async def _patch(self, status: Object) -> None:
        try:
            await self._api.patch(self._path, {"metadata": {"uid": self._uid}, "status": status}, kind=STRATEGIC)
        except RequestError as error:
            if error.status not in (404, 409):
                raise
