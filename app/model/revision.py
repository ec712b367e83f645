"""A ControllerRevision: a pool's template as the cluster keeps it, should the pool have to go back to it."""

from __future__ import annotations

from typing import Any

import msgspec

from app.model.meta import ObjectMeta


class ControllerRevision(msgspec.Struct, frozen=True):
    """``data`` is the PodTemplateSpec; its hash is the object's velda.io/template-hash label."""

    metadata: ObjectMeta = ObjectMeta()
    data: Any = None
