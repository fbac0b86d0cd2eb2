"""The slow twin of the bounded cache: plain lists, keys rotated afresh at every step, attention written out.

It shares nothing with `inf_stream.cache` but the policies (tested on their own) and the shape of its calls, so that
a model can run on either. Positions are worked out token by token, scores are accumulated at every step from the
full attention matrix, everything in float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import RotationTables
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.policies.base import Evidence, Policy
from inf_stream.cache.slots import SlotView


@dataclass
class Entry:
    """One token of one row: integers, and per head of the row its raw key and value."""

    index: int
    time_ns: int
    frame: int
    segment: int
    offsets: tuple[int, int, int]
    visual: bool
    key: Tensor | None = None
    value: Tensor | None = None
    accumulated: float = 0.0


def positions_by_hand(entries: list[Entry], segmented: bool) -> list[tuple[int, ...]]:
    """Positions of a row's tokens: rank, or segment start plus offset, one token after the other."""
    if not segmented:
        return [(rank,) for rank in range(len(entries))]
    found: list[tuple[int, ...]] = []
    start, reach, segment = 0, 0, None
    for entry in entries:
        if entry.segment != segment:
            start, reach, segment = start + reach, 0, entry.segment
        found.append(tuple(start + o for o in entry.offsets))
        reach = max(reach, max(entry.offsets) + 1)
    return found


class ReferenceCache:
    """Same calls as `StreamCache`: `begin`, `attend` on the step, `commit`."""

    def __init__(
        self,
        layout: CacheLayout,
        policy: Policy,
        rotation: RotationTables,
        *,
        budget_tokens: int,
        chunk_tokens: int,
        evict_every_tokens: int,
    ):
        self.layout, self.policy, self.rotation = layout, policy, rotation
        self.budget_tokens, self.evict_every_tokens = budget_tokens, evict_every_tokens
        self.chunk_tokens = chunk_tokens
        rows = layout.kv_heads if policy.per_head else 1
        self.rows: list[list[list[Entry]]] = [[[] for _ in range(rows)] for _ in range(layout.layers)]
        self.seen = 0
        self.since = 0
        self.evictions = 0
        self.opening = 0
        self.frames: list[tuple[int, int]] = []
        self.novelty: dict[int, float] = {}
        # Attention of each query since the last eviction, per layer and row: {token index: probability}.
        self.history: list[list[list[dict[int, float]]]] = [[[] for _ in range(rows)] for _ in range(layout.layers)]

    def begin(self, tags: TokenTags) -> "ReferenceCache":
        self.tags = tags
        self.new = [
            (self.seen + i, int(tags.time_ns[i]), int(tags.frame[i]), int(tags.segment[i]),
             tuple(tags.offsets[:, i].tolist()), bool(tags.visual[i]))
            for i in range(len(tags))
        ]  # fmt: skip
        return self

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "query_heads rows head_dim"],
        keys: Float[Tensor, "kv_heads rows head_dim"],
        values: Float[Tensor, "kv_heads rows head_dim"],
        scaling: float,
    ) -> Float[Tensor, "query_heads rows head_dim"]:
        out = torch.zeros_like(queries)
        queries = queries[:, : len(self.new)]
        kv_heads = self.layout.kv_heads
        group = self.layout.query_heads // kv_heads
        rows = self.rows[layer]
        for r, row in enumerate(rows):
            heads = [r] if len(rows) > 1 else list(range(kv_heads))
            for i, (index, time_ns, frame, segment, offsets, visual) in enumerate(self.new):
                key, value = keys[heads, i].double(), values[heads, i].double()
                row.append(Entry(index, time_ns, frame, segment, offsets, visual, key, value))
            cos, sin = self._table(layer, row)
            raw = torch.stack([e.key for e in row], dim=1)
            rotated = _rotate(raw, cos, sin)
            stored = torch.stack([e.value for e in row], dim=1)
            new = len(self.new)
            seen = self._seen(layer, row)
            mean, paid = (torch.zeros(new, len(row), dtype=torch.float64) for _ in range(2))
            for h, head in enumerate(heads):
                for g in range(group):
                    q = _rotate(queries[head * group + g].double(), cos[-new:], sin[-new:])
                    logits = (q @ rotated[h].T * scaling).masked_fill(~seen, -torch.inf)
                    weights = logits.softmax(-1)
                    causal = (q @ rotated[h].T * scaling).masked_fill(~self._causal(row), -torch.inf).softmax(-1)
                    mean += causal / (group * len(heads))
                    paid += weights / (group * len(heads))
                    out[head * group + g, :new] = (weights @ stored[h]).to(out.dtype)
            for i in range(new):
                self.history[layer][r].append({e.index: float(mean[i, j]) for j, e in enumerate(row)})
            for j, entry in enumerate(row):
                entry.accumulated += float(paid[:, j].sum())
        return out

    def commit(self, step: "ReferenceCache") -> None:
        for index, _, frame, *_ in self.new:
            if frame >= 0 and (not self.frames or self.frames[-1][0] != frame):
                self.frames.append((frame, index))
        self.seen += len(self.new)
        self.since += len(self.new)
        used = len(self.rows[0][0])
        if self.policy.bounded and used > self.budget_tokens and self.since >= self.evict_every_tokens:
            self._evict()

    def kept(self) -> list[list[list[int]]]:
        """Indices of the kept tokens, per layer and row."""
        return [[[e.index for e in row] for row in layer] for layer in self.rows]

    def close_opening(self) -> None:
        self.opening = self.seen

    # ---- inside ------------------------------------------------------------------------------------

    def _evict(self) -> None:
        def plane(of) -> Tensor:
            return torch.tensor([[[of(e) for e in row] for row in layer] for layer in self.rows])

        if self.policy.needs_novelty:
            self._judge()
        remembered = tuple(self.frames[-self.policy.frames_remembered :])
        view = SlotView(plane(lambda e: e.index), plane(lambda e: e.frame), self.seen, remembered, self.opening)
        keep = self.policy.plan(view, self._evidence(plane), self.budget_tokens)
        for layer, rows in enumerate(self.rows):
            sliding = self.layout.sliding_windows[layer] is not None
            for r, row in enumerate(rows):
                chosen = range(len(row) - keep.shape[-1], len(row)) if sliding else keep[layer, r].tolist()
                rows[r] = [row[i] for i in chosen]
                self.history[layer][r].clear()
        self.since = 0
        self.evictions += 1

    def _evidence(self, plane) -> Evidence:
        norms = None
        if self.policy.needs_value_norms:
            norms = plane(lambda e: float(e.value.norm(dim=-1).mean())).float()
        if self.policy.accumulates:
            return Evidence(received=plane(lambda e: e.accumulated).float(), value_norms=norms)
        window = min(self.policy.window_tokens, self.since)
        if not window:
            return Evidence(value_norms=norms)
        received = [
            [[sum(q.get(e.index, 0.0) for q in self.history[li][r][-window:]) for e in row]
             for r, row in enumerate(rows)]
            for li, rows in enumerate(self.rows)
        ]  # fmt: skip
        indices = [e.index for e in self.rows[0][0]]
        visible = [sum(1 for k in range(window) if self.seen - window + k >= i) for i in indices]
        novelty = None
        if self.policy.needs_novelty:
            novelty = plane(lambda e: 0.0 if e.frame < 0 else self.novelty.get(e.frame, 1.0)).float()
        return Evidence(torch.tensor(received, dtype=torch.float32), torch.tensor(visible), norms, novelty)

    def _judge(self) -> None:
        """Novelty of frames that came since the last eviction, or were the newest then, token by token."""
        seeing = [li for li in range(self.layout.layers) if self.layout.sliding_windows[li] is None]
        every = max(1, len(seeing) // 6)
        newest = self.frames[-1][0] if self.frames else None
        due = {e.frame for e in self.rows[0][0] if e.frame >= 0 and e.visual} - {newest} - set(self.novelty)
        far: dict[int, dict[int, list[float]]] = {frame: {} for frame in due}
        for li in seeing[every // 2 :: every][:6]:
            for row in self.rows[li]:
                shown = [e for e in row if e.frame >= 0 and e.visual]
                mean = sum(e.key.flatten() for e in shown) / len(shown) if shown else 0
                directions = {e.index: _direction(e.key.flatten() - mean) for e in shown}
                for e in shown:
                    if e.frame in due:
                        earlier = [float(directions[e.index] @ directions[o.index]) for o in shown if o.frame < e.frame]
                        nearest = max([*earlier, 0.0])
                        far[e.frame].setdefault(e.index, []).append(min(1.0, 1 - nearest))
        for frame, tokens in far.items():
            best = sorted((sum(t) / len(t) for t in tokens.values()), reverse=True)[: -(-len(tokens) // 4)]
            if best:
                self.novelty[frame] = sum(best) / len(best)

    def _table(self, layer: int, row: list[Entry]) -> tuple[Tensor, Tensor]:
        where = torch.tensor(positions_by_hand(row, self.layout.segmented)).T[:, None]
        cos, sin = self.rotation(where)[self.layout.table_of_layer[layer]]
        return cos[0].double(), sin[0].double()

    def _causal(self, row: list[Entry]) -> Tensor:
        new, total = len(self.new), len(row)
        return torch.tensor([[j <= total - new + i for j in range(total)] for i in range(new)])

    def _seen(self, layer: int, row: list[Entry]) -> Tensor:
        seen = self._causal(row)
        new, total = seen.shape
        window = self.layout.sliding_windows[layer]
        for i in range(new):
            for j in range(total):
                if window is not None and total - new + i - j >= window:
                    seen[i, j] = False
                mine, other = row[total - new + i], row[j]
                both = mine.visual and other.visual and mine.segment == other.segment and j >= total - new
                if self.layout.bidirectional_frames and both:
                    seen[i, j] = True
        return seen


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turning = cos.shape[-1]
    half = turning // 2
    first, second, rest = x[..., :half], x[..., half:turning], x[..., turning:]
    low = first * cos[..., :half] - second * sin[..., :half]
    high = second * cos[..., half:] + first * sin[..., half:]
    return torch.cat((low, high, rest), dim=-1)


def _direction(key: Tensor) -> Tensor:
    return key / max(float(key.norm()), 1e-12)
