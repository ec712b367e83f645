"""A million steps of simulated worlds: the real core, registry and controller on a virtual clock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from tests.bench.bench import Bench
from tests.support.running import CHECKOUT

SEEDS = ("11", "12", "13", "14")


async def measure(bench: Bench, *, steps: int = 1_000_000) -> None:
    """Line ``simulation``: steps, seeds, how often each invariant was checked, and what failed. In its own process."""
    command = [sys.executable, "-m", "tests.sim", "--steps", str(steps), "--seeds", *SEEDS]
    done = await asyncio.to_thread(subprocess.run, command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    del told["figure"]
    bench.line("simulation", ok=not told["failures"] and told["steps"] >= steps, **told)
