"""README.md says what the committed results say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_results_in_the_readme_come_from_the_committed_files() -> None:
    script = ROOT / "demos" / "bench" / "readme_results.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
