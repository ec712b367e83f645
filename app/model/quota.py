"""The part of a ResourceQuota that says whether a refused pod may be taken now, and how many a namespace can hold."""

from __future__ import annotations

from typing import Any

import msgspec

from app.model.meta import ObjectMeta


class QuotaSpec(msgspec.Struct, frozen=True, rename="camel"):
    hard: dict[str, str] | None = None
    scopes: tuple[str, ...] | None = None
    scope_selector: Any = None


class QuotaStatus(msgspec.Struct, frozen=True):
    used: dict[str, str] | None = None


class ResourceQuota(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()
