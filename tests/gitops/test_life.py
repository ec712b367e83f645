"""One pool's life on the whole product, seen as a GitOps tool sees it: each version that the API server tells of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.product import Product
from tests.gitops.lua import health
from tests.gitops.phases import Life
from tests.gitops.record import live
from tests.gitops.test_health import CASES, MEANS, kstatus, recorded
from tests.support.cluster import Fleet

pytestmark = pytest.mark.e2e


@pytest.fixture
def product(fleet: Fleet) -> Iterator[Product]:
    (product := Product(fleet)).install()
    yield product
    product.uninstall()


async def test_health_follows_a_pools_life_and_does_not_flap_while_it_refills(product: Product) -> None:
    life = await live(product)
    assert_as_recorded(life)
    for version, theirs in zip(life.versions, kstatus(*life.versions), strict=True):
        ours = health(version)
        assert theirs == ("Terminating" if "deletionTimestamp" in version["metadata"] else MEANS[ours.status]), version
    assert len(life.steady) >= 4, "idle, refilling, busy, idle again"
    assert {health(version).status for version in life.steady} == {"Healthy"}


def assert_as_recorded(life: Life) -> None:
    """The phases that testdata/ has are those of today, so that what is said of it holds."""
    names = {case["inputPath"]: case["healthStatus"]["status"] for case in CASES}
    found = {f"testdata/{name.replace(' ', '-')}.yaml": health(at).status for name, at in life.phases.items()}
    assert found == names
    for case in CASES:
        name = case["inputPath"].removeprefix("testdata/").removesuffix(".yaml").replace("-", " ")
        assert recorded(case)["status"].keys() == life.phases[name]["status"].keys()
