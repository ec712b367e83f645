"""``kubectl port-forward`` on a stage whose pods no kubelet can reach: through the stage's door for that Service.

The first argument is the directory of doors, the others are kubectl's.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.support.relay import relay

NUMBERS = {"https": "443", "grpc": "50051"}


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("doors", type=Path)
    parser.add_argument("verb", choices=["port-forward"])
    parser.add_argument("service")
    parser.add_argument("ports")
    parser.add_argument("--namespace", "-n", required=True)
    given, _ = parser.parse_known_args()
    local, _, remote = given.ports.rpartition(":")
    name = f"{given.namespace}.{given.service.rpartition('/')[2]}.{NUMBERS.get(remote, remote)}"

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay((reader, writer), await asyncio.open_unix_connection(given.doors / name))

    server = await asyncio.start_server(connect, "127.0.0.1", int(local or 0))
    print(f"Forwarding from 127.0.0.1:{server.sockets[0].getsockname()[1]} -> {remote}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
