"""``python -m app agent``: one agent as a process, of a container or of a shell.

It imports little and logs by the standard library: a worker's memory belongs to its sessions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from app.agent.agent import Agent, Identity
from app.agent.config import AgentConfig, ConfigError, load
from app.agent.credentials import Credentials
from app.agent.session import ProcessRunner
from app.core.proofs import CA_KEY, TOKEN_FILE

USAGE_ERROR = 2


def run(*, pool: str = "", config: Path, name: str = "") -> int:
    """Serve sessions until SIGTERM or SIGINT; the exit code. ``pool`` and ``name`` outrank velda.yaml."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = load(config)
        credentials = Credentials(settings, ca=config.with_name(CA_KEY)) if settings.speaks_tls else None
        if not (pool or settings.pool):
            raise ConfigError(f"{config}: no pool: give --pool NAME or set the key pool")
    except ConfigError as error:
        print(f"velda agent: {error}", file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    identity = Identity(agent_id=name or settings.name(), pool=pool or settings.pool, hostname=socket.gethostname())
    asyncio.run(_serve(identity, settings, credentials))
    return 0


async def _serve(identity: Identity, settings: AgentConfig, credentials: Credentials | None) -> None:
    runner = ProcessRunner()
    agent = Agent(
        identity,
        target=settings.broker_address,
        runner=runner,
        slots=settings.max_sessions,
        credentials=credentials,
        token=None if settings.client_certificate else Path(TOKEN_FILE),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, runner.reap_all)
    await agent.run()
