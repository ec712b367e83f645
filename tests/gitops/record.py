"""``python -m tests.gitops.record``: testdata/ anew, from a pool's life on the fleet stage, for health_test.yaml."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from tests.e2e.product import Product, Sessions
from tests.gitops.phases import Life
from tests.support.cluster import Fleet, stage_process

TESTDATA = Path(__file__).parent / "testdata"


async def live(product: Product) -> Life:
    """One pool's whole life."""
    async with Sessions(product.broker, token=product.user("gitops")) as sessions:
        life = Life(product, sessions, product.namespace())
        await life.live()
    return life


def main() -> None:
    with stage_process("fleet") as description:
        fleet = Fleet(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))
        (product := Product(fleet)).install()
        life = asyncio.run(live(product))
    TESTDATA.mkdir(exist_ok=True)
    for phase, version in life.phases.items():
        del version["metadata"]["managedFields"]
        version["metadata"].get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
        (TESTDATA / f"{phase.replace(' ', '-')}.yaml").write_text(yaml.safe_dump(version, sort_keys=False, width=110))
    print(f"{len(life.phases)} phases of {len(life.versions)} versions are in {TESTDATA}")


if __name__ == "__main__":
    main()
