"""How little a frame resembles those that are remembered when it comes, by their keys."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from inf_stream.base.errors import StateError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.state import State
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.planes import KeyValuePlanes
from inf_stream.cache.slots import SlotTable, SlotView

_LAYERS = 6
"""So many, evenly spread over the depth, are enough to tell new from known."""
_TELLING = 4
"""Of a frame's tokens the most novel fourth counts, so that something small in a still picture is seen."""


class NoveltyMeter:
    """Judges each frame once, before the first eviction after it has come whole.

    A visual token is as novel as its key differs from the most similar one of any earlier frame that is still kept: 1
    less their cosine, after the mean of all kept visual keys is taken from both; averaged over some layers. Unrotated
    keys are compared, so it does not matter when something was seen. That what lies in the cache twice may go is the
    idea of the temporal redundancy of InfiniPot-V (arXiv 2506.15745); here it is looked for among all that is kept, and
    only moves the attention bias.

    Args:
        layout: of the cache.
    """

    def __init__(self, layout: CacheLayout):
        seeing = [layer for layer, window in enumerate(layout.sliding_windows) if window is None]
        step = max(1, len(seeing) // _LAYERS)
        self._layers = seeing[step // 2 :: step][:_LAYERS]
        self._of_frame: dict[int, float] = {}
        self._judged_tokens = 0

    def judge(self, slots: SlotTable, planes: KeyValuePlanes) -> None:
        """Judge the frames that have come whole since the last time; the newest may not have."""
        if not self._layers or slots.frames_seen == 0:
            return
        whole = slots.newest_frame_index
        new = slice(max(0, slots.used - (slots.tokens_seen - self._judged_tokens)), slots.used)
        novelty = torch.stack([self._of_tokens(slots, planes, layer, new) for layer in self._layers]).mean(0).cpu()
        index, frames = (slots.planes[name][0, 0, new].cpu() for name in ("index", "frame"))
        is_visual = slots.planes["visual"][0, 0, new].cpu() > 0
        judged = is_visual & (index < whole)
        for frame in torch.unique(frames[judged]).tolist():
            of_it = novelty[judged & (frames == frame)]
            self._of_frame[frame] = float(of_it.topk(-(-len(of_it) // _TELLING)).values.mean())
        self._judged_tokens = max(self._judged_tokens, whole)
        self._forget_gone(slots)

    def of(self, slots: SlotView) -> Float[Tensor, "layers rows slots"]:
        """Novelty of the frame of every slot, 0 to 1: 0 for text, and 1 for frames that were not judged yet."""
        is_text = slots.frame == NO_FRAME
        if not self._of_frame:
            return torch.ones(slots.frame.shape, device=is_text.device).masked_fill_(is_text, 0.0)
        frames, novelty = zip(*sorted(self._of_frame.items()), strict=True)
        known, values = (torch.tensor(column, device=is_text.device) for column in (frames, novelty))
        places = torch.searchsorted(known, slots.frame.contiguous()).clamp_(max=len(known) - 1)
        found = torch.where(known[places] == slots.frame, values[places], 1.0)
        return found.masked_fill_(is_text, 0.0)

    def _of_tokens(
        self, slots: SlotTable, planes: KeyValuePlanes, layer: int, new: slice
    ) -> Float[Tensor, "new_slots"]:
        """How far each new slot's key is from the most similar one of an earlier frame; slots of text mean nothing."""
        keys = planes.raw_keys[layer, :, : slots.used]
        if slots.rows == 1:
            keys = keys.transpose(0, 1).flatten(1)[None]
        frames, visual = slots.planes["frame"][layer, :, : slots.used], slots.planes["visual"][layer, :, : slots.used]
        shown = ((visual > 0) & (frames != NO_FRAME))[..., None]
        mean = (keys * shown).sum(1, keepdim=True) / shown.sum(1, keepdim=True).clamp(min=1)
        directions = normalize((keys - mean).float(), dim=-1).to(keys.dtype)
        alike = (directions[:, new] @ directions.transpose(1, 2)).float()
        is_earlier = (frames[:, None] < frames[:, new, None]) & shown[..., 0][:, None]
        return (1 - alike.masked_fill(~is_earlier, 0.0).amax(-1)).clamp(0, 1).mean(0)

    def _forget_gone(self, slots: SlotTable) -> None:
        if len(self._of_frame) > 2 * slots.capacity:
            kept = set(torch.unique(slots.planes["frame"][..., : slots.used]).tolist())
            self._of_frame = {frame: novelty for frame, novelty in self._of_frame.items() if frame in kept}

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """What was judged."""
        frames = [[frame, novelty] for frame, novelty in sorted(self._of_frame.items())]
        return State(facts={"frames": frames, "judged_tokens": self._judged_tokens})

    def restore(self, state: State) -> None:
        """Take over what `state` of another gave.

        Raises:
            StateError: it does not fit; nothing was taken over.
        """
        frames, judged = state.fact("frames", list), state.count("judged_tokens")
        for pair in frames:
            if not isinstance(pair, list) or [type(n) for n in pair] != [int, float] or not 0 <= pair[1] <= 1:
                raise StateError(f"the saved session has {pair!r} as the novelty of a frame")
        self._of_frame, self._judged_tokens = dict(frames), judged
