from pathlib import Path

import pytest
from support.command_line import save_tiny
from support.media import numbered_clip, write_images


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that sees."""
    return save_tiny(tmp_path_factory.mktemp("seeing"), "smolvlm")


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that reads text."""
    return save_tiny(tmp_path_factory.mktemp("reading"), "llama")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of video."""
    return numbered_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 24, fps=2)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six images."""
    return write_images(tmp_path_factory.mktemp("pictures"), 6)
