"""ConfigMap: of which only the data are read."""

from __future__ import annotations

import msgspec


class ConfigMap(msgspec.Struct, frozen=True):
    """``data`` may lack, or be null."""

    data: dict[str, str] | None = None
