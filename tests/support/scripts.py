"""A short stream written twice: as tagged chunks for a streaming model, and as one input for the stock model."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from support.tiny_models import PROCESSORS, token
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.models.chunk import Chunk, VisualTokens
from inf_stream.models.stream_model import StreamModel

NS_PER_FRAME = 1_000_000_000
PLACEHOLDERS = {
    "qwen2-vl": "<|image_pad|>",
    "qwen2.5-vl": "<|image_pad|>",
    "qwen3-vl": "<|video_pad|>",
    "smolvlm": "<image>",
    "idefics3": "<image>",
    "llava": "<image>",
    "llava-lite": "<image>",
    "llava-onevision": "<video>",
    "internvl": "<IMG_CONTEXT>",
    "gemma3": "<image_soft_token>",
}
PROCESSOR_CLASSES: dict[str, Any] = {
    "qwen2-vl": Qwen2VLImageProcessorPil,
    "qwen2.5-vl": Qwen2VLImageProcessorPil,
    "qwen3-vl": Qwen2VLImageProcessorPil,
    "smolvlm": SmolVLMImageProcessorPil,
    "idefics3": SmolVLMImageProcessorPil,
    "llava": CLIPImageProcessorPil,
    "llava-lite": SiglipImageProcessorPil,
    "llava-onevision": LlavaOnevisionImageProcessorPil,
    "internvl": GotOcr2ImageProcessorPil,
    "gemma3": Gemma3ImageProcessorPil,
}


def random_frames(model: StreamModel, count: int, width: int = 40, height: int = 24) -> UInt8[Tensor, "frames h w 3"]:
    """Frames of the size the model takes, unlike each other."""
    assert model.vision is not None
    width, height = model.vision.frame_size(width, height)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


class Script:
    """Collects text and frames; `chunk` is ours, `ids` are the stock model's, with placeholders for the frames."""

    def __init__(self, model: StreamModel, name: str):
        self.model, self.name = model, name
        self.ids: list[int] = []
        self._parts: list[Chunk] = []
        self._segment = 0
        self._frame = 0

    def text(self, text: str, frame: int = NO_FRAME) -> "Script":
        ids = self.model.ids(text)
        if len(ids):
            self.ids += ids.tolist()
            self._add(self.model.embed(ids), torch.arange(len(ids)), frame, None)
        return self

    def frame(self, visual: VisualTokens, time_format: str = "auto") -> "Script":
        assert self.model.vision is not None
        before, after = self.model.vision.wrapping()
        at_ns = self._frame * NS_PER_FRAME
        self.text(self.model.vision.time_text(time_format, at_ns, self._frame) + before, self._frame)
        self.ids += [token(PLACEHOLDERS[self.name])] * len(visual)
        self._add(visual.embeds, torch.zeros(len(visual), dtype=torch.int64), self._frame, visual)
        self.text(after, self._frame)
        self._frame += 1
        return self

    @property
    def chunk(self) -> Chunk:
        return Chunk.concatenate(self._parts)

    def _add(self, embeds: Tensor, segments: Tensor, frame: int, visual: VisualTokens | None) -> None:
        zeros = torch.zeros(len(segments), dtype=torch.int64)
        tags = TokenTags(
            time_ns=zeros + self._frame * NS_PER_FRAME,
            frame=zeros + frame,
            segment=segments + self._segment,
            offsets=visual.offsets.cpu() if visual else torch.zeros(3, len(segments), dtype=torch.int64),
            visual=zeros + int(visual is not None),
        )
        self._segment = int(tags.segment[-1]) + 1
        self._parts.append(Chunk(embeds, tags, visual.deepstack if visual else None))


def script_of(model: StreamModel, name: str, encoded: Sequence[VisualTokens]) -> Script:
    """An opening, the frames with a remark after the second, and a question."""
    script = Script(model, name).text("<|im_start|>You see a street.\n")
    for number, visual in enumerate(encoded):
        script.frame(visual)
        if number == 1:
            script.text("A remark!\n")
    return script.text("What is there?<|im_end|>\n<|im_start|>It is")


def stock_of(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that attends as transformers does; make it before a `StreamModel` takes the model over."""
    return copy.deepcopy(model)


def stock_inputs(name: str, ids: Sequence[int], frames: UInt8[Tensor, "frames h w 3"]) -> dict[str, Any]:
    """What the family's own processor would hand the stock model, pixels by transformers' own image processor."""
    row = torch.tensor([list(ids)])
    if not len(frames):
        return {"input_ids": row}
    is_visual = (row == token(PLACEHOLDERS[name])).int()
    pictures: list[np.ndarray] = list(frames.numpy())
    more = {"do_image_splitting": False} if name in ("smolvlm", "idefics3") else {}
    if name == "llava-onevision":
        # Its processor tiles images; a video's frames are one tile, which an image of the tile's size is too.
        more = {"image_grid_pinpoints": [[20, 20]]}
    made = PROCESSOR_CLASSES[name](**PROCESSORS[name], **more)(images=pictures, return_tensors="pt")
    pixels = made["pixel_values"]
    match name:
        case "qwen2-vl" | "qwen2.5-vl":
            found = {"pixel_values": pixels, "image_grid_thw": made["image_grid_thw"], "mm_token_type_ids": is_visual}
        case "qwen3-vl":
            grid = made["image_grid_thw"][:1].clone()
            grid[:, 0] = len(frames)
            found = {"pixel_values_videos": pixels, "video_grid_thw": grid, "mm_token_type_ids": is_visual * 2}
        case "smolvlm" | "idefics3":
            found = {"pixel_values": pixels.flatten(0, 1)[None]}
        case "llava-onevision":
            found = {"pixel_values_videos": pixels[:, :1]}
        case "gemma3":
            found = {"pixel_values": pixels, "token_type_ids": is_visual}
        case _:
            found = {"pixel_values": pixels}
    return {"input_ids": row, **found}


@torch.inference_mode()
def stock_logits(stock: PreTrainedModel, inputs: dict[str, Any]) -> Float[Tensor, "tokens vocabulary"]:
    return stock(**inputs, use_cache=False).logits[0].float()


def pieces(chunk: Chunk, sizes: Sequence[int]) -> Iterator[Chunk]:
    """The chunk cut into pieces of these sizes, over and over."""
    start, turn = 0, 0
    while start < len(chunk):
        stop = min(start + sizes[turn % len(sizes)], len(chunk))
        yield chunk.slice(start, stop)
        start, turn = stop, turn + 1


def whole_frames(chunk: Chunk, size: int) -> Iterator[Chunk]:
    """The chunk cut into pieces of `size` or more, never inside a frame's visual tokens."""
    segment, start = chunk.tags.segment, 0
    while start < len(chunk):
        stop = min(start + size, len(chunk))
        while stop < len(chunk) and segment[stop] == segment[stop - 1]:
            stop += 1
        yield chunk.slice(start, stop)
        start = stop


def run(model: StreamModel, cache: Any, chunks: Iterator[Chunk]) -> Float[Tensor, "tokens vocabulary"]:
    """Logits of every token, the chunks written to the cache one after the other."""
    found = []
    for chunk in chunks:
        step = cache.begin(chunk.tags)
        found.append(model.logits(model.forward(chunk, step)))
        cache.commit(step)
    return torch.cat(found)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the scale of the logits."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
