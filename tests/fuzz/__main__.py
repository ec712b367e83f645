"""``make fuzz``: the properties of the tests beside this file, guided by coverage instead of chance; ends at a failure.

What is found is kept below .cache/fuzz, so that the next run goes on from there; a failing input is printed by
hypothesis as an example, which then becomes a test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import atheris

from tests.support.running import CHECKOUT

with atheris.instrument_imports(include=["app", "jsonpatch", "yaml"]):
    from tests.fuzz import test_pools, test_reviews, test_texts

TARGETS: dict[str, Any] = {
    "reviews": test_reviews.any_review("/validate", "update"),
    "pods": test_reviews.any_review("/mutate", "pod"),
    "pools": test_pools.test_any_pool_is_reconciled_or_refused,
    "settings": test_texts.test_any_settings_are_taken_or_refused,
    "agent": test_texts.test_any_velda_yaml_is_taken_or_refused,
}


def main(target: str = "pools", seconds: str = "60") -> None:
    corpus = CHECKOUT / ".cache" / "fuzz" / target
    corpus.mkdir(parents=True, exist_ok=True)
    one: Callable[[bytes], object] = TARGETS[target].hypothesis.fuzz_one_input

    def fuzz(data: bytes) -> None:
        one(data)

    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1024", "-max_len=8192"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], fuzz)
    atheris.Fuzz()


main(*sys.argv[1:])
