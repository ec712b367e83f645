"""``python -m tests.sim --steps N --seeds A B``: simulate, print the report as JSON; exit code 1 on a failure."""

from __future__ import annotations

import argparse
import json
import sys

from tests.sim.run import Report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="in all seeds together")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    options = parser.parse_args()
    report = Report()
    for seed in options.seeds:
        report.merge(run(seed, options.steps // len(options.seeds)))
    print(json.dumps({"figure": "simulation", **report.line()}))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
