"""Tells that something we keep has changed: what it is now, whoever decides reads anew.

Each watch asks for one name, so that RBAC can grant it for that name alone; of a Secret no content is kept.
"""

from __future__ import annotations

from collections.abc import Callable

from app.kube.client import Client
from app.kube.informer import Informer
from app.model.meta import OnlyMetadata


async def watch(client: Client, path: str, changed: Callable[[], None]) -> None:
    """Call ``changed`` whenever the object at ``path`` appears, changes or goes, until cancelled."""
    collection, _, name = path.rpartition("/")
    informer = Informer(
        client,
        path=collection,
        type=OnlyMetadata,
        on_change=lambda _old, _new: changed(),
        field_selector=f"metadata.name={name}",
    )
    await informer.run()
