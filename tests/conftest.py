"""Ground of every test: shapes checked, one thread, no hub, the same seeds each time."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import support.branches
import support.typecheck
from jaxtyping import install_import_hook

branch_coverage = support.branches.of_rooms()
branch_coverage.start()

install_import_hook(["inf_stream", "edge"], f"{support.typecheck.__name__}.checked")

import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import settings

from inf_stream.models.weights.builtin import fetch_builtin
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.pretrained import load_pretrained

# A suite started in the background would ignore Ctrl-C, and so would every program it tries Ctrl-C on.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
settings.register_profile("here", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    """Branch coverage goes on if this is the whole suite, and ends here otherwise."""
    config.pluginmanager.register(branch_coverage, "branch_coverage")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same random numbers, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The GGUF file of the built-in model, fetched once per machine. No network and no file is a failure."""
    return fetch_builtin("smollm2-135m")


@pytest.fixture(scope="session")
def load_weights(smollm2_file: Path) -> Callable[[torch.dtype], LoadedWeights]:
    """Loads a fresh copy of the real SmolLM2-135M, for tests that change the model."""
    return lambda dtype: load_pretrained("smollm2-135m", torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def weights(load_weights: Callable[[torch.dtype], LoadedWeights]) -> LoadedWeights:
    """The real SmolLM2-135M in float32, shared by all tests: not to be changed."""
    return load_weights(torch.float32)
