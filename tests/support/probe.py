"""Readiness and liveness as kubelet asks for them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from tests.support.api import Object
from tests.support.netns import Netns

_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


class Prober:
    """Asks a container in its network namespace; ``ports`` are the names that its ports have."""

    def __init__(self, netns: Netns, address: str, ports: dict[str, int]) -> None:
        self._netns = netns
        self._address = address
        self._ports = ports

    async def first(self, probe: Object) -> bool:
        """A startup probe: True at its first success, False when it has failed too often."""
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe.get("failureThreshold", 3)):
            if await self.ask(probe):
                return True
            await asyncio.sleep(probe.get("periodSeconds", 10))
        return False

    async def follow(self, probe: Object, changed: Callable[[bool], Awaitable[None]]) -> None:
        """Report the first answer that counts and each change of it, for ever."""
        wanted = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        known: bool | None = None
        same, last = 0, None
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            answer = await self.ask(probe)
            same = same + 1 if answer == last else 1
            last = answer
            if answer != known and same >= wanted[answer]:
                known = answer
                await changed(answer)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def ask(self, probe: Object) -> bool:
        if "httpGet" not in probe:
            raise NotImplementedError("this stage knows only httpGet probes")
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                return await self._http(probe["httpGet"])
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False

    async def _http(self, target: Object) -> bool:
        port = target["port"]
        number = self._ports[port] if isinstance(port, str) else port
        dialer = self._netns.dialer("127.0.0.1")
        try:
            await asyncio.get_running_loop().sock_connect(dialer, (self._address, number))
        except BaseException:
            dialer.close()
            raise
        tls = _UNVERIFIED if target.get("scheme") == "HTTPS" else None
        reader, writer = await asyncio.open_connection(sock=dialer, ssl=tls, server_hostname="" if tls else None)
        try:
            request = f"GET {target.get('path', '/')} HTTP/1.1\r\nHost: {self._address}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            status = (await reader.readuntil(b"\r\n")).split()[1]
            return 200 <= int(status) < 400
        finally:
            writer.transport.abort()
