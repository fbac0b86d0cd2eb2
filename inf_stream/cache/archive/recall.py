"""Blocks of the archive that take part in an answer: each layer chooses its own while the question is read.

Choosing. The lower third of the layers votes (`inf_stream.cache.archive.ballots`), and the others take what that chose,
so that most layers recall the same moments (`all-vote` in `demos/bench/recall.py` is the other way). Frames are told
apart by their mean keys. Pieces of text are not, so each token of the question attends to each of theirs
(`inf_stream.cache.archive.attended`), of which an hour has few; half of what is recalled may be text, half frames, and
more of either where there is less of the other.

Taking part. The chosen tokens stand behind the live ones in memory, but before all of them in position: the cache
leaves the first `recall_tokens` positions to them, always. So no live key is touched, and when the answer is over only
what was said in it moves up by as many slots; its positions are right already. They may also stay
(`ArchiveSizes.keep_recalled`) until the next question calls back others.

    slot      0 ... live ... | recalled ...   | question, answer
    position  R ... R + live | ... R (time)   | R + live ...
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive.archive import Archive
from inf_stream.cache.archive.attended import AttentionBallot
from inf_stream.cache.archive.ballots import Ballot, MeansBallot
from inf_stream.cache.archive.recalled import Recalled

MOST_TEXT = 256
"""Pieces of text that a layer attends to, so that a question takes as long after days of talk as after an hour."""


def _voters(layout: CacheLayout) -> tuple[int, ...]:
    """Layers that choose: the lower third of those that see everything."""
    seeing = [layer for layer, window in enumerate(layout.sliding_windows) if window is None]
    return tuple(seeing[: -(-len(seeing) // 3)])


def _ballots(archive: Archive, places: Int[Tensor, "candidates"], blocks: int) -> list[Ballot]:
    """Who competes with whom for so many seats, by `ArchiveSizes.choose_by`."""
    if not blocks:
        return []
    if archive.sizes.choose_by == "means":
        return [MeansBallot(archive, places, blocks)]
    if archive.sizes.choose_by == "attention":
        return [AttentionBallot(archive, places, blocks)]
    is_text = archive.frames()[places] == NO_FRAME
    text, frames = places[is_text], places[~is_text]
    of_frames = min(len(frames), blocks - min(len(text), blocks // 2))
    ballots: list[Ballot] = []
    if of_frames:
        ballots.append(MeansBallot(archive, frames, of_frames))
    if blocks > of_frames:
        ballots.append(AttentionBallot(archive, text, blocks - of_frames, MOST_TEXT))
    return ballots


class Recall(Recalled):
    """What is recalled for one answer."""

    def __init__(self, archive: Archive, start: int, between_ns: tuple[int, int] | None):
        self.archive = archive
        allowed = torch.nonzero(archive.candidates(between_ns))[:, 0]
        self._voters = _voters(archive.layout)
        self.blocks = min(archive.recall_blocks, len(allowed)) if self._voters else 0
        super().__init__(start, self.blocks * archive.block_tokens, {})
        self.ballots = _ballots(archive, allowed, self.blocks)
        self._chosen: dict[int, Tensor] = {}
        # Blocks that come meanwhile may take the places of the oldest.
        self._times_ns, self._frames = archive.times_ns().clone(), archive.frames().clone()
        self._received = torch.zeros(len(self._frames))

    def begin_choice(self) -> None:
        """More of the question follows: the layers choose afresh."""
        for ballot in self.ballots:
            ballot.begin()

    def choose(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float) -> None:
        """Let a layer choose by what it heard of the question, in rising order of layers.

        `queries` are its unrotated ones of the question's latest part, which the archive has heard already.
        """
        if layer > self._voters[-1]:
            self._chosen[layer], self._hidden[layer] = self._chosen[self._voters[-1]], self._hidden[self._voters[-1]]
            return
        for ballot in self.ballots:
            ballot.vote(layer, queries, scaling)
        best = torch.cat([ballot.elected() for ballot in self.ballots])
        self._chosen[layer] = chosen = self.archive.in_time_order(best)
        gone = torch.isin(chosen, torch.cat([ballot.gone for ballot in self.ballots]))
        filled = self.archive.filled(chosen) & ~gone.repeat_interleave(self.archive.block_tokens)
        self._hidden[layer] = None if bool(filled.all()) else ~filled

    def chosen(self, layer: int) -> Int[Tensor, "blocks"]:
        """Places of what the layer chose, in time order."""
        return self._chosen[layer]

    # ---- evidence ----------------------------------------------------------------------------------

    def receive(self, layer: int, received: Float[Tensor, "rows slots"]) -> None:
        """Count what attention the recalled slots of a layer received; one that sees only the latest has none."""
        if layer not in self._chosen:
            return
        by_block = received.sum(0).view(self.blocks, -1).sum(-1).cpu()
        self._received.index_add_(0, self._chosen[layer], by_block)

    def weights(self) -> dict[int, float]:
        """Stream time in ns of each frame that received attention -> how much."""
        places = torch.nonzero((self._received > 0) & (self._frames != NO_FRAME))[:, 0]
        found: dict[int, float] = {}
        times, received = self._times_ns[places].tolist(), self._received[places].tolist()
        for at_ns, weight in zip(times, received, strict=True):
            found[at_ns] = found.get(at_ns, 0.0) + weight
        return found
