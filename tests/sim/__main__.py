"""``python -m tests.sim --steps 1000000 --seeds 1 2``: the simulator's report as one line of JSON; 1 when it failed."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor

import msgspec

from app.obs.progress import SOON, waiting
from tests.sim.run import Report, run
from tests.sim.shrink import shrink


def simulate(*, steps: int, seeds: list[int], processes: int = 1) -> Report:
    """So many steps in all, shared by the seeds."""
    total, share = Report(), -(-steps // len(seeds))
    if processes == 1:
        reports = [run(seed, share) for seed in seeds]
    else:
        with ProcessPoolExecutor(processes) as pool:
            reports = list(pool.map(run, seeds, [share] * len(seeds)))
    for report in reports:
        total.merge(report)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="print each failure's moves, cut down, as JSON")
    options = parser.parse_args()
    with waiting(f"simulating {options.steps} steps", after=SOON):
        report = simulate(steps=options.steps, seeds=options.seeds, processes=options.processes)
    print(json.dumps({"figure": "simulation", **report.line()}))
    for failure in report.failures if options.shrink else ():
        print(msgspec.json.encode(shrink(failure)).decode())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
