"""The part of a ResourceQuota that says whether a refused pod may be taken now."""

from __future__ import annotations

import msgspec

from app.model.meta import ObjectMeta


class QuotaSpec(msgspec.Struct, frozen=True):
    hard: dict[str, str] | None = None


class QuotaStatus(msgspec.Struct, frozen=True):
    used: dict[str, str] | None = None


class ResourceQuota(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()
