"""README.md says what the committed results say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from inf_stream.app.demo import CLIP_QUESTIONS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["readme_results.py", "quality/readme_tables.py"])
def test_the_results_in_a_readme_come_from_the_committed_files(name: str) -> None:
    script = ROOT / "demos" / "bench" / name
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_transcript_in_the_readme_is_one_of_the_demo_as_it_is() -> None:
    """What the model says depends on the processor's rounding; what it is asked and when does not."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- transcript -->")[2].partition("<!-- /transcript -->")[0]
    assert "$ inf-stream demo\n" in shown
    assert re.findall(r"^\? (.+)$", shown, re.MULTILINE) == [q.text for q in CLIP_QUESTIONS]
    assert len(re.findall(r"^\[\d\d:\d\d\] \S", shown, re.MULTILINE)) == len(CLIP_QUESTIONS)
    assert (ROOT / "demos" / "bench" / "results" / "demo_memory_map.png").is_file()
