"""Several replicas whose requests meet in any order, that crash at any point, and of which any may believe it leads.

At no moment does a replica that is ready serve a certificate whose CA is not in what webhooks have published; and
whatever was begun comes to its end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any, cast

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.settings import Webhook
from certs.agreement import CertificateError
from certs.manager import CertificateManager
from certs.material import blocks, issued_by
from certs.rotation import Phase
from certs.store import ROTATE_ANNOTATION
from tests.certs.simulated import Api, SimulatedClient

SETTINGS = Webhook(validating_configuration="velda", mutating_configuration="velda", ca_overlap_seconds=0)
CONFIGURATIONS = (paths.validating_webhook("velda"), paths.mutating_webhook("velda"))
SECRET = paths.secret(NamespacedName("velda", SETTINGS.certificate_secret))
REPLICAS = 3
ACCIDENTS = 2


class Process:
    """One server process in its pod."""

    def __init__(self, api: Api, pod: str) -> None:
        self.pod = pod
        self.leading = False
        self._client = SimulatedClient(api)
        self.manager = CertificateManager(
            cast(Client, self._client), namespace="velda", settings=SETTINGS, pod=pod, leading=lambda: self.leading
        )
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(ApiError, CertificateError):
                await self.manager.ensure()
            await self._client.pause()

    @property
    def served(self) -> bytes:
        return self.manager._serving.pair.certificate


class Replicas(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.api = Api()
        self.processes: list[Process] = []
        self.pods = 0
        self.accidents = 0
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

    @initialize()
    def begin(self) -> None:
        for path in CONFIGURATIONS:
            service = {"name": SETTINGS.service, "namespace": "velda"}
            hooks = [{"name": name, "clientConfig": {"service": dict(service)}} for name in ("one", "two")]
            self.api.put(path, {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "velda"}, "webhooks": hooks})
        self.start()

    @precondition(lambda self: len(self.processes) < REPLICAS)
    @rule()
    def start(self) -> None:
        self.pods += 1
        self._start(f"pod-{self.pods}")

    @rule(data=st.data(), same_pod=st.booleans())
    def crash(self, data: st.DataObject, same_pod: bool) -> None:
        """What it had sent may still be carried out; its pod goes, or starts it again."""
        process = data.draw(st.sampled_from(self.processes))
        self.processes.remove(process)
        process.task.cancel()
        self._settle()
        if same_pod:
            self._start(process.pod)
        else:
            del self.api.objects[_pod(process.pod)]
            if not self.processes:
                self.start()

    @rule(data=st.data())
    def lead(self, data: st.DataObject) -> None:
        """Any number of them may believe it."""
        process = data.draw(st.sampled_from(self.processes))
        process.leading = not process.leading

    @rule(data=st.data(), steps=st.integers(1, 30))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            if self.api.requests:
                self._advance(data.draw(st.integers(0, len(self.api.requests) - 1)))

    @precondition(lambda self: SECRET in self.api.objects)
    @rule(what=st.sampled_from(["ca", "ca", "leaf"]))
    def request(self, what: str) -> None:
        secret = self.api.find(SECRET)
        secret["metadata"].setdefault("annotations", {})[ROTATE_ANNOTATION] = what
        self.api.put(SECRET, secret)

    @precondition(lambda self: SECRET in self.api.objects and self._accident_allowed())
    @rule(key=st.sampled_from(["tls.crt", "tls.key", "ca.crt", "ca.key"]))
    def corrupt(self, key: str) -> None:
        self.accidents += 1
        secret = self.api.find(SECRET)
        secret["data"][key] = base64.b64encode(b"garbage").decode()
        self.api.put(SECRET, secret)

    @precondition(lambda self: SECRET in self.api.objects and self._accident_allowed())
    @rule()
    def delete(self) -> None:
        self.accidents += 1
        del self.api.objects[SECRET]

    @precondition(lambda self: self._accident_allowed())
    @rule(path=st.sampled_from(CONFIGURATIONS))
    def wipe(self, path: str) -> None:
        self.accidents += 1
        configuration = self.api.find(path)
        configuration["webhooks"][0]["clientConfig"].pop("caBundle", None)
        self.api.put(path, configuration)

    @invariant()
    def whoever_is_ready_is_trusted(self) -> None:
        for process in self.processes:
            for bundle in filter(None, self._published() if process.manager.ready else []):
                assert any(issued_by(process.served, authority) for authority in blocks(bundle)), process.pod

    def teardown(self) -> None:
        """With one leader and no more trouble all comes to rest."""
        try:
            for process in self.processes:
                process.leading = process is self.processes[0]
            for _ in range(3000):
                if self._at_rest():
                    break
                self._advance(0)
                self.whoever_is_ready_is_trusted()
            assert not self.processes or self._at_rest()
        finally:
            for process in self.processes:
                process.task.cancel()
            self._settle()
            self.loop.close()
            structlog.reset_defaults()

    def _at_rest(self) -> bool:
        """Everyone serves the one certificate of the one CA that all have published, and no wish is open."""
        secret = self.api.objects.get(SECRET)
        if not secret or ROTATE_ANNOTATION in secret["metadata"]["annotations"]:
            return False
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        agreed = [process.manager._agreed for process in self.processes]
        return (
            all(found is not None and found.phase is Phase.STEADY for found in agreed)
            and all(process.manager.ready and process.served == data["tls.crt"] for process in self.processes)
            and len(blocks(data["ca.crt"])) == 1
            and set(self._published()) == {data["ca.crt"]}
        )

    def _accident_allowed(self) -> bool:
        """One at a time: where the Secret and what is published are lost together, nobody can know the old CA."""
        return self.accidents < ACCIDENTS and all(self._published()) and SECRET in self.api.objects

    def _published(self) -> list[bytes]:
        hooks: list[dict[str, Any]] = [hook for path in CONFIGURATIONS for hook in self.api.objects[path]["webhooks"]]
        return [base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in hooks]

    def _start(self, pod: str) -> None:
        if _pod(pod) not in self.api.objects:
            self.api.put(_pod(pod), {"metadata": {"name": pod}})

        async def start() -> Process:
            return Process(self.api, pod)

        self.processes.append(self.loop.run_until_complete(start()))
        self._settle()

    def _advance(self, number: int) -> None:
        self.api.advance(self.api.requests[number])
        self._settle()

    def _settle(self) -> None:
        """Until every process waits for the API server again."""

        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())


def _pod(name: str) -> str:
    return paths.pod(NamespacedName("velda", name))


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
