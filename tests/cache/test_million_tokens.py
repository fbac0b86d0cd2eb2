"""A million tokens through a small random model: nothing grows, no step gets dearer, nothing drifts."""

import psutil
import torch
from support.reference_cache import Entry, ReferenceCache
from support.tiny_models import tiny_weights
from torch.utils.flop_counter import FlopCounterMode

from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

TOKENS, CHUNK, BUDGET = 1_000_000, 500, 256


class Stream:
    def __init__(self) -> None:
        self.model = StreamModel(tiny_weights("llama", num_hidden_layers=2, hidden_size=32, intermediate_size=64))
        sizes = {"budget_tokens": BUDGET, "chunk_tokens": CHUNK, "evict_every_tokens": 32}
        policy = make_policy("inf-mllm", {"window": 32, "bias_slope": 1.0})
        self.cache = StreamCache(self.model.layout, policy, self.model.rotation, **sizes)
        self.reference = ReferenceCache(self.model.layout, policy, self.model.rotation, **sizes)
        self.random = torch.Generator().manual_seed(1)

    def chunk(self, tokens: int) -> Chunk:
        ids = torch.randint(0, 200, (tokens,), generator=self.random)
        number = torch.arange(self.cache.seen_tokens, self.cache.seen_tokens + tokens)
        zeros = torch.zeros_like(number)
        tags = TokenTags(number, zeros + NO_FRAME, number, torch.zeros(3, tokens, dtype=torch.int64), zeros)
        return Chunk(self.model.embed(ids), tags)

    def read(self, tokens: int) -> None:
        chunk = self.chunk(tokens)
        step = self.cache.begin(chunk.tags)
        self.model.forward(chunk, step)
        self.cache.commit(step)

    def addresses(self) -> list[int]:
        planes = self.cache.planes
        tensors = [planes.raw_keys, planes.values, planes.rotated_keys, *self.cache.slots.planes.values()]
        return [t.data_ptr() for t in tensors]

    def flops_of_a_step(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.read(CHUNK)
        return counter.get_total_flops()

    def logits_now(self) -> torch.Tensor:
        """Logits of a probe, whose step is given up afterwards."""
        probe = self.chunk(7)
        return self.model.logits(self.model.forward(probe, self.cache.begin(probe.tags)))

    def logits_rebuilt_from_raw_keys(self) -> torch.Tensor:
        """The same from a list-based cache filled with the raw keys and values, by attention written out."""
        planes, used = self.cache.planes, self.cache.used_tokens
        index = self.cache.slots.view().index
        for layer, (row,) in enumerate(self.reference.rows):
            row[:] = [
                Entry(int(index[layer, 0, s]), 0, -1, int(index[layer, 0, s]), (0, 0, 0), False,
                      planes.raw_keys[layer, :, s].double(), planes.values[layer, :, s].double())
                for s in range(used)
            ]  # fmt: skip
        probe = self.chunk(7)
        return self.model.logits(self.model.forward(probe, self.reference.begin(probe.tags)))


def test_a_million_tokens_leave_everything_as_it_was() -> None:
    stream, process = Stream(), psutil.Process()
    while stream.cache.seen_tokens < TOKENS // 10:
        stream.read(CHUNK)
    addresses, cache_bytes = stream.addresses(), stream.cache.bytes()
    flops, memory = stream.flops_of_a_step(), process.memory_info().rss
    while stream.cache.seen_tokens < TOKENS:
        stream.read(CHUNK)
        assert stream.cache.used_tokens <= BUDGET
    assert stream.addresses() == addresses
    assert stream.cache.bytes() == cache_bytes
    assert stream.flops_of_a_step() == flops
    assert process.memory_info().rss < memory * 1.02
    stream.cache.check()

    state = stream.random.get_state()
    now = stream.logits_now()
    stream.random.set_state(state)
    rebuilt = stream.logits_rebuilt_from_raw_keys()
    assert float(now.abs().max()) > 1
    torch.testing.assert_close(now, rebuilt, rtol=1e-5, atol=1e-4)
