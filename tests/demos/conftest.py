"""The demos are programs; here their folders are where modules are found."""

import sys
from pathlib import Path

DEMOS = Path(__file__).parents[2] / "demos"
sys.path[:0] = [str(DEMOS / "clients"), str(DEMOS / "bench" / "quality"), str(DEMOS / "bench")]
