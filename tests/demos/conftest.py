"""The benchmarks are scripts; their tests import them from their folders."""

import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "demos" / "bench"
sys.path[:0] = [str(BENCH / "quality"), str(BENCH)]
