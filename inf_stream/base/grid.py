"""The few shapes that tensors take on their way through a model.

Kernel libraries below torch compile and keep a kernel per shape. On a CPU a stream whose every chunk has another
length takes two to four times as long in its first thousand steps and holds hundreds of megabytes of kernels; so new
tokens are padded to a multiple of `TOKEN_GRID`, and slots are read up to a multiple of `SLOT_GRID`.
"""

SLOT_GRID = 64
TOKEN_GRID = 32


def round_up(count: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-count // grid) * grid


def padded_tokens(tokens: int) -> int:
    """Rows a chunk of this many tokens takes in a forward pass; a single token stays alone."""
    return tokens if tokens == 1 else round_up(tokens, TOKEN_GRID)
