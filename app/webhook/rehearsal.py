"""One pod of the template, created with dryRun: what the API server would say to the controller, said to the user now.

A refusal of the template is the user's to mend. Whatever else goes wrong (a quota that is used up, a service account
that comes later, an API server too busy) must not stop a pool from being written: it becomes a warning.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from app.core.fields import INVALID, WRONG_TYPE
from app.core.validation import shorten
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import FieldError
from app.model.meta import MANAGER

BUDGET = 3.0
"""Seconds; the API server waits 5 s for our whole answer."""
TEMPLATE = "spec.template"
FORBIDDEN = "FieldValueForbidden"

_PREFIX = re.compile(
    r'^(Pod "[^"]*" is invalid: |pods "[^"]*" is forbidden: |Pod in version "v1" cannot be handled as a Pod: )'
)
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')
_GO_FIELD = re.compile(r"cannot unmarshal (\S+) into Go struct field \w+\.(\S+) of type (\S+)")
_PASSING = ("exceeded quota: ", "error looking up service account ")
"""Refusals that time mends: the pool may come before the account, and pods of others may go."""
_OURS = re.compile(r'User "[^"]*" cannot create resource "pods"')


class Verdict(NamedTuple):
    errors: tuple[FieldError, ...] = ()
    warnings: tuple[str, ...] = ()
    pod: Mapping[str, Any] | None = None
    """What it takes, as the API server would store it, with the defaults of the namespace; None if it would not."""
    unknown_fields: bool = False
    """The warnings are about fields that the API server does not know; the rest was not looked at."""


class _Container(msgspec.Struct, rename="camel", omit_defaults=True):
    resources: dict[str, Any] | None = None
    restart_policy: str = ""


class _Spec(msgspec.Struct, rename="camel", omit_defaults=True):
    containers: list[_Container]
    init_containers: list[_Container] | None = None
    overhead: dict[str, Any] | None = None


class _Pod(msgspec.Struct):
    """Only what a quota counts: verdicts are kept."""

    spec: _Spec


async def rehearse(client: Client, pod: Mapping[str, Any]) -> Verdict:
    """Raises for nothing that the API server says or does not say."""
    try:
        async with asyncio.timeout(BUDGET):
            verdict = await _attempt(client, pod, validation="Strict")
            if not verdict.unknown_fields:
                return verdict
            again = await _attempt(client, pod, validation="Ignore")
            return again._replace(warnings=(*verdict.warnings, *again.warnings))
    except TimeoutError:
        return not_rehearsed(f"no answer within {BUDGET:.0f} s")


async def _attempt(client: Client, pod: Mapping[str, Any], *, validation: str) -> Verdict:
    params = {"dryRun": "All", "fieldManager": MANAGER, "fieldValidation": validation}
    try:
        body = await client.create(paths.pods(pod["metadata"]["namespace"]), pod, params=params)
    except ApiError as error:
        return judge(error)
    return Verdict(pod=msgspec.to_builtins(msgspec.json.decode(body, type=_Pod)))


def judge(error: ApiError) -> Verdict:
    """What an error of the dry run means for the AgentPool, with paths as the user knows them."""
    message = _PREFIX.sub("", error.message)
    if unknown := _unknown_fields(error):
        return Verdict(warnings=unknown, unknown_fields=True)
    if error.already_exists:
        return Verdict()
    if error.status not in (400, 403, 422) or _OURS.search(message):
        return not_rehearsed(message)
    if message.startswith(_PASSING):
        return Verdict(warnings=(shorten(f"no agent can be created now: {message}"),))
    if error.causes:
        return Verdict(errors=tuple(_rewritten(cause) for cause in error.causes))
    return Verdict(errors=(_without_path(error, message),))


def _rewritten(cause: FieldError) -> FieldError:
    path = f"{TEMPLATE}.{cause.field}" if cause.field and cause.field != "<nil>" else TEMPLATE
    return FieldError(path, cause.reason or INVALID, cause.message)


def _without_path(error: ApiError, message: str) -> FieldError:
    """Wrong types come with the path in Go's words and without indices; policies come with none."""
    if found := _GO_FIELD.search(message):
        got, path, wanted = found.groups()
        return FieldError(f"{TEMPLATE}.{path}", WRONG_TYPE, f"must be a {wanted}, not a {got}")
    if message.startswith("quantities must match"):
        return FieldError(TEMPLATE, INVALID, "has a quantity that cannot be read, they are written like 4, 500m or 8Gi")
    return FieldError(TEMPLATE, FORBIDDEN if error.status == 403 else INVALID, message)


def _unknown_fields(error: ApiError) -> tuple[str, ...]:
    if error.status != 400 or "strict decoding error" not in error.message:
        return ()
    found = dict.fromkeys(_UNKNOWN_FIELD.findall(error.message))
    return tuple(shorten(f"{TEMPLATE}.{path}: unknown field, it has no effect") for path in found)


def not_rehearsed(why: str) -> Verdict:
    return Verdict(warnings=(shorten(f"template could not be rehearsed: {why}"),))
