from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.command_line import save_tiny
from support.media import numbered_clip

WITHOUT_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"needs a CUDA device; torch {torch.__version__} sees none"
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, WITHOUT_CUDA])])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device the tests of this folder run on, in full float32; the CPU tries their bodies everywhere."""
    saved = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = saved


@pytest.fixture(scope="session")
def tiny_seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that sees, with M-RoPE."""
    return save_tiny(tmp_path_factory.mktemp("seeing"), "qwen2.5-vl")


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of video."""
    return numbered_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 16, fps=2)
