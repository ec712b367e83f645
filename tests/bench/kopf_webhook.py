"""``python -m tests.bench.kopf_webhook PORT CERTIFICATE KEY``: a webhook for AgentPools by kopf, which allows all."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import kopf

from app.model.meta import GROUP, PLURAL, VERSION


async def serve(port: int, certificate: str, key: str) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**given)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.admission.server = kopf.WebhookServer(addr="127.0.0.1", port=port, certfile=certificate, pkeyfile=key)

    @kopf.on.validate(GROUP, VERSION, PLURAL, id="validate", registry=registry)
    def validate(**_: Any) -> None:
        """Allows what kopf has decoded."""

    await kopf.operator(registry=registry, clusterwide=True, standalone=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
