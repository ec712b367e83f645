"""What stands between one replica and the API server: time, loss, errors, and watches that lag, repeat and break.

Has the methods of app.kube.client.Client that the server uses, with the same errors.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from app.kube.errors import ApiError, ApiUnreachable
from app.model.meta import NamespacedName
from tests.sim.api import PODS, WATCHED, Api, Change, Key, Object, label
from tests.sim.loop import VirtualLoop

NEVER = float("inf")
PATIENCE = 30.0
"""Seconds after which a client gives up waiting for an answer."""
ABSORBED = 0.3
"""Share of bad weather in which a watch tells an event twice."""


class Fate(NamedTuple):
    """Of one request: seconds until it is carried out, seconds until its answer is there, and an error in its place."""

    there: float
    back: float
    error: ApiError | None = None


class Weather:
    """How bad the way to the API server is, for all replicas. ``stalled``: pools whose requests get no answer."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.trouble = 0.0
        """Share of requests that do not go well."""
        self.stalled: set[NamespacedName] = set()

    def fate(self, pool: NamespacedName | None) -> Fate:
        rng = self.rng
        soon, back = rng.uniform(0.001, 0.02), rng.uniform(0.001, 0.02)
        if pool in self.stalled:
            return Fate(NEVER, PATIENCE, ApiUnreachable("no answer in time"))
        if self.trouble == 0.0 or rng.random() >= self.trouble:
            return Fate(soon, back)
        return rng.choice(
            (
                Fate(NEVER, back, ApiUnreachable("connection refused")),
                Fate(soon, back, ApiUnreachable("connection reset")),
                Fate(NEVER, PATIENCE, ApiUnreachable("no answer in time")),
                Fate(rng.uniform(0, PATIENCE), NEVER, ApiUnreachable("no answer in time")),
                Fate(NEVER, back, ApiError(500, "InternalError", "etcdserver: leader changed")),
                Fate(soon, back, ApiError(504, "Timeout", "request did not complete")),
                Fate(NEVER, back, ApiError(429, "TooManyRequests", "try later", retry_after=rng.uniform(1, 5))),
                Fate(rng.uniform(0.1, 5), rng.uniform(0.1, 5)),
            )
        )


class SimClient:
    """One replica's. ``stuck_until`` holds up a watch; ``cut`` ends all watches of a kind, now."""

    def __init__(
        self,
        api: Api,
        loop: VirtualLoop,
        weather: Weather,
        *,
        stepped: Callable[[str], None],
        told: Callable[..., None],
        answered: Callable[..., None],
    ) -> None:
        self.api, self.loop, self.weather = api, loop, weather
        self.stuck_until: dict[str, float] = dict.fromkeys(WATCHED, 0.0)
        self._stepped, self._told, self._answered = stepped, told, answered
        self._waiting: dict[str, set[asyncio.Future[None]]] = {plural: set() for plural in WATCHED}
        self.told: dict[str, int] = dict.fromkeys(WATCHED, 0)
        """The version up to which lists and watches have told what is."""
        self._cuts: dict[str, int] = dict.fromkeys(WATCHED, 0)

    # Requests. ``told`` hears of each before it is sent: verb, plural, key, body or uid.

    async def get(self, path: str, **_: object) -> bytes:
        plural, key = parse(path)[:2]
        if key is not None:
            return await self._request(plural, None, lambda: self.api.get(plural, key))
        body = await self._request(plural, None, lambda: self._list(plural))
        self.told[plural] = int(msgspec.json.decode(body)["metadata"]["resourceVersion"])
        return body

    def _list(self, plural: str) -> Object:
        items = [item for item in self.api.all(plural) if plural != PODS or label(item)]
        return {"metadata": {"resourceVersion": str(self.api.version)}, "items": items}

    async def create(self, path: str, body: Any, **_: object) -> bytes:
        plural = parse(path)[0]
        made = msgspec.json.decode(body) if isinstance(body, bytes) else body
        key = made["metadata"]["namespace"], made["metadata"]["name"]
        self._told("create", plural, key, made)
        pool = NamespacedName(key[0], label(made)) if plural == PODS else None
        return await self._until("create", plural, key, made, pool, lambda: self.api.create(plural, made))

    async def apply(self, path: str, body: Any, **_: object) -> bytes:
        plural, key, subresource = parse(path)
        assert key is not None
        self._told("apply", plural, key, body)
        if subresource == "status":
            return await self._request(plural, NamespacedName(*key), lambda: self.api.apply_status(plural, key, body))
        return await self._request(plural, None, lambda: self._create_or_replace(plural, body))

    def _create_or_replace(self, plural: str, body: Object) -> Object:
        found = self.api.find(plural, (body["metadata"]["namespace"], body["metadata"]["name"]))
        return self.api.write(plural, found, data=body["data"]) if found else self.api.create(plural, body)

    async def merge_patch(self, path: str, body: Any, **_: object) -> bytes:
        plural, key, _subresource = parse(path)
        assert key is not None
        patch = msgspec.json.decode(msgspec.json.encode(body))
        self._told("patch", plural, key, patch)
        pool = self._pool_of(plural, key)
        return await self._until("patch", plural, key, patch, pool, lambda: self.api.patch_meta(plural, key, patch))

    async def delete(self, path: str, *, uid: str | None = None, **_: object) -> bytes:
        plural, key, _subresource = parse(path)
        assert key is not None
        self._told("delete", plural, key, uid)

        def act() -> None:
            self._told("carry out", plural, key, uid)
            self.api.delete(plural, key, uid_is=uid)

        return await self._until("delete", plural, key, uid, self._pool_of(plural, key), act)

    async def _until(  # noqa: PLR0917  what is asked for, in the order of a request
        self, verb: str, plural: str, key: Key, body: Any, pool: NamespacedName | None, act: Callable[[], Object | None]
    ) -> bytes:
        try:
            answer = await self._request(plural, pool, act)
        except ApiError:
            self._answered(verb, plural, key, body, failed=True)
            raise
        self._answered(verb, plural, key, body, failed=False)
        return answer

    def _pool_of(self, plural: str, key: Key) -> NamespacedName | None:
        found = self.api.find(plural, key)
        return NamespacedName(key[0], label(found)) if plural == PODS and found else None

    async def _request(self, plural: str, pool: NamespacedName | None, act: Callable[[], Object | None]) -> bytes:
        fate = self.weather.fate(pool)
        answer: asyncio.Future[Object | None] = self.loop.create_future()

        def carry_out() -> None:
            error, result = fate.error, None
            try:
                result = act()
            except ApiError as refused:
                error = error or refused
            self._stepped(f"request for {plural} carried out")
            if fate.back != NEVER:
                self.loop.later(fate.back, reply, error, result)

        def reply(error: ApiError | None, result: Object | None) -> None:
            if not answer.done():
                if error:
                    answer.set_exception(error)
                else:
                    answer.set_result(result)

        if fate.there != NEVER:
            self.loop.later(fate.there, carry_out)
        if NEVER in (fate.there, fate.back):
            self.loop.later(PATIENCE if fate.back == NEVER else fate.back, reply, fate.error, None)
        result = await answer
        return msgspec.json.encode(result) if result is not None else b""

    # Watches.

    def news(self, plural: str) -> None:
        for waiter in self._waiting[plural]:
            if not waiter.done():
                waiter.set_result(None)

    def cut(self, plural: str) -> None:
        self._cuts[plural] += 1
        self.news(plural)

    async def watch(self, path: str, params: Mapping[str, str], *, silence: float) -> AsyncGenerator[bytes]:
        """Lines in the order of their versions, each some time after its change, some of them twice."""
        plural = parse(path)[0]
        at = self.api.since(plural, int(params["resourceVersion"]))
        cuts, end = self._cuts[plural], self.loop.time() + int(params["timeoutSeconds"])
        changes = self.api.changes[plural]
        while self.loop.time() < end:
            if self._cuts[plural] != cuts:
                raise ApiUnreachable("the watch broke")
            if at == len(changes):
                await self._wait(plural, end)
            elif (wait := self._delay(plural, changes[at])) > 0:
                await asyncio.sleep(wait)
            else:
                for line in self._told_as(changes, at):
                    yield line
                self.told[plural] = changes[at].version
                at += 1
                self._stepped(f"watch of {plural} tells a change")

    async def _wait(self, plural: str, end: float) -> None:
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiting[plural].add(waiter)
        alarm = self.loop.call_at(end, _finish, waiter)
        try:
            await waiter
        finally:
            alarm.cancel()
            self._waiting[plural].discard(waiter)

    def _delay(self, plural: str, change: Change) -> float:
        rng, now = self.weather.rng, self.loop.time()
        if now < self.stuck_until[plural]:
            return self.stuck_until[plural] - now
        usual = rng.uniform(0.001, 0.02) if rng.random() >= self.weather.trouble else rng.uniform(0.02, 3.0)
        return max(0.0, change.time + usual - now) if change.time + 0.02 > now or usual > 0.02 else 0.0

    def _told_as(self, changes: list[Change], at: int) -> list[bytes]:
        rng = self.weather.rng
        if self.weather.trouble == 0.0 or rng.random() >= ABSORBED * self.weather.trouble:
            return [changes[at].line]
        older = changes[max(0, at - rng.randrange(1, 4)) : at]  # a cache that lags behind what was listed
        return [*(change.line for change in older), changes[at].line, changes[at].line]


def parse(path: str) -> tuple[str, Key | None, str]:
    """Plural, key (None for a collection) and subresource of a path."""
    parts = path.strip("/").split("/")
    if "namespaces" not in parts:
        return parts[-1], None, ""
    namespace, plural, *rest = parts[parts.index("namespaces") + 1 :]
    return plural, (namespace, rest[0]) if rest else None, rest[1] if len(rest) > 1 else ""


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
