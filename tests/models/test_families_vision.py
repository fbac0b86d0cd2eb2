"""Frames on their way into the models: sizes, pixel values, the text around them, and what is refused."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripts import PLACEHOLDERS, PROCESSOR_CLASSES, Script, random_frames, script_of
from support.tiny_models import PROCESSORS, TEXT, VISION, tiny_tokenizer, tiny_weights
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.video_utils import VideoMetadata

from inf_stream.base.errors import ConfigError, ModelError
from inf_stream.models.families import VisionAdapter, family_of
from inf_stream.models.families.qwen_vl import QwenVision
from inf_stream.models.families.vision import PixelScaling
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.loaded import LoadedWeights

SQUARE = [name for name in VISION if "qwen" not in name]
QWEN = [name for name in VISION if "qwen" in name]
S = 1_000_000_000


def adapter(weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
    made = family_of(weights.config).vision(weights, frame_tokens)
    assert made is not None
    return made


def qwen(processor: dict[str, Any], frame_tokens: int | None = None) -> QwenVision:
    weights = dataclasses.replace(tiny_weights("qwen2-vl"), image_processor=PROCESSORS["qwen2-vl"] | processor)
    return QwenVision(weights, frame_tokens)


# ---- sizes -------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([None, 1, 2, 7, 64, 200]))
def test_qwen_frame_sizes_keep_the_limits(width: int, height: int, frame_tokens: int | None) -> None:
    vision = _QWEN if frame_tokens is None else _QWEN_OF[frame_tokens]
    fitted = vision.frame_size(width, height)
    assert min(fitted) >= 8
    assert all(edge % 8 == 0 for edge in fitted)
    assert fitted[0] * fitted[1] == 64 * vision.tokens(width, height)
    assert vision.tokens(width, height) <= (frame_tokens or 256)
    assert vision.frame_size(*fitted) == fitted


@given(st.integers(8, 1000), st.integers(8, 1000))
def test_qwen_frame_sizes_are_those_of_the_models_own_processor(width: int, height: int) -> None:
    if max(width, height) / min(width, height) > 20:
        return
    expected = smart_resize(height, width, factor=8, min_pixels=1024, max_pixels=256 * 64)
    assert _QWEN.frame_size(width, height) == expected[::-1]


_QWEN = qwen({"min_pixels": 1024, "max_pixels": 1 << 20})
_QWEN_OF = {n: qwen({"min_pixels": 1024, "max_pixels": 1 << 20}, n) for n in (1, 2, 7, 64, 200)}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"min_pixels": 128, "max_pixels": 640}, (2, 10)),
        ({"min_pixels": None, "max_pixels": None, "size": {"shortest_edge": 128, "longest_edge": 640}}, (2, 10)),
        ({"min_pixels": None, "max_pixels": None, "size": {"min_pixels": 128, "max_pixels": 640}}, (2, 10)),
        ({"min_pixels": None, "max_pixels": None, "size": None}, (0, 256)),
    ],
)
def test_qwen_pixel_limits_under_all_their_names(limits: dict[str, Any], expected: tuple[int, int]) -> None:
    vision = qwen(limits)
    assert (vision.least_pixels // 64, vision.most_tokens) == expected


@pytest.mark.parametrize("name", QWEN)
def test_a_full_hd_frame_is_cheap_by_default_and_frame_tokens_makes_it_cheaper(name: str) -> None:
    weights = tiny_weights(name)
    large = {"min_pixels": 256, "max_pixels": 1 << 24, "size": {"shortest_edge": 256, "longest_edge": 1 << 24}}
    weights = dataclasses.replace(weights, image_processor=PROCESSORS[name] | large)
    assert 200 < adapter(weights).tokens(1920, 1080) <= 256
    assert 40 < adapter(weights, 64).tokens(1920, 1080) <= 64
    model = StreamModel(weights, frame_tokens=12)
    encoded = model.encode(random_frames(model, 1, 1920, 1080))[0]
    assert len(encoded) == adapter(weights, 12).tokens(1920, 1080) <= 12


@pytest.mark.parametrize("name", SQUARE)
def test_square_families_take_every_frame_at_one_size(name: str) -> None:
    weights = tiny_weights(name)
    vision = adapter(weights)
    needed = vision.tokens(24, 24)
    assert vision.frame_size(1920, 1080) == vision.frame_size(5, 7) == vision.frame_size(*vision.frame_size(5, 7))
    assert vision.tokens(1920, 1080) == needed == adapter(weights, needed).tokens(5, 7)
    with pytest.raises(ConfigError, match=f"frame_tokens is {needed - 1}, but a frame of this model always takes"):
        adapter(weights, needed - 1)


@pytest.mark.parametrize("name", VISION)
def test_frame_tokens_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match="frame_tokens is 0"):
        adapter(tiny_weights(name), 0)


def test_text_models_do_not_see() -> None:
    weights = tiny_weights("llama")
    assert family_of(weights.config).vision(weights, 64) is None


# ---- pixel values ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VISION)
def test_pixel_values_are_those_of_transformers_own_image_processor(name: str) -> None:
    model = StreamModel(tiny_weights(name))
    frames = random_frames(model, 2)
    scaled = PixelScaling.read(PROCESSORS[name])(frames, torch.float32)
    if name in QWEN:
        assert isinstance(model.vision, QwenVision)
        scaled = model.vision._patches(scaled)
    more = {"do_image_splitting": False} if name in ("smolvlm", "idefics3") else {}
    made = PROCESSOR_CLASSES[name](**PROCESSORS[name], **more)(images=list(frames.numpy()), return_tensors="pt")
    expected = made["pixel_values"]
    if name in ("smolvlm", "idefics3"):
        expected = expected.flatten(0, 1)
    if name == "llava-onevision":
        expected = expected[:, 0]
    assert torch.allclose(scaled, expected, rtol=1e-5, atol=1e-5)


def test_llava_onevision_ends_a_frame_with_the_newline_whether_transformers_adds_it_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = StreamModel(tiny_weights("llava-onevision"))
    frames = random_frames(model, 2)
    expected = model.encode(frames)
    inner = model.weights.model.model
    features = inner.get_video_features

    def without_newline(pixels: torch.Tensor, return_dict: bool) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=features(pixels, return_dict=return_dict).pooler_output[:, :9])

    monkeypatch.setattr(inner, "get_video_features", without_newline)
    for ours, theirs in zip(model.encode(frames), expected, strict=True):
        assert torch.equal(ours.embeds, theirs.embeds)
        assert torch.equal(ours.embeds[-1], inner.image_newline)


def test_rescaling_and_normalising_can_be_off() -> None:
    frame = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    only_rescaled = PixelScaling.read({"do_normalize": False})(frame, torch.float32)
    assert torch.allclose(only_rescaled, torch.full((1, 3, 2, 2), 0.2))
    raw = PixelScaling.read({"do_normalize": False, "do_rescale": False})(frame, torch.bfloat16)
    assert torch.equal(raw, torch.full((1, 3, 2, 2), 51.0, dtype=torch.bfloat16))
    both = PixelScaling.read({"image_mean": mean, "image_std": std})(frame, torch.float32)
    assert torch.allclose(both[0, :, 0, 0], torch.tensor([0.1, 0.0, -0.025]))


@pytest.mark.parametrize("mean", [None, 0.5, [0.5], "0.5"])
def test_a_processor_without_a_mean_per_channel_is_refused(mean: object) -> None:
    with pytest.raises(ModelError, match=r"image_mean = .*three numbers are expected"):
        PixelScaling.read({"image_mean": mean, "image_std": [1, 1, 1]})


@pytest.mark.parametrize("name", VISION)
def test_bfloat16(name: str) -> None:
    model = StreamModel(tiny_weights(name, dtype=torch.bfloat16))
    encoded = model.encode(random_frames(model, 2))
    assert {e.embeds.dtype for e in encoded} == {torch.bfloat16}
    assert script_of(model, name, encoded).chunk.embeds.dtype == torch.bfloat16


# ---- the text around frames --------------------------------------------------------------------


def text_of(model: StreamModel, name: str, at_s: list[float]) -> str:
    """Two frames as text, placeholders included, times in the family's own form."""
    vision = model.vision
    assert vision is not None
    before, after = vision.wrapping()
    places = PLACEHOLDERS[name] * vision.tokens(40, 24)
    times = [vision.time_text("auto", round(at * S), number) for number, at in enumerate(at_s)]
    return "".join(time + before + places + after for time in times)


def test_qwen3_vl_frames_read_as_its_processor_writes_them() -> None:
    model = StreamModel(tiny_weights("qwen3-vl"))
    stand_in = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        video_token="<|video_pad|>",
        _calculate_timestamps=lambda *a: Qwen3VLProcessor._calculate_timestamps(None, *a),
    )
    metadata = VideoMetadata(total_num_frames=4, fps=2.0, frames_indices=[3, 3, 150, 150])
    video = {"video_grid_thw": torch.tensor([[2, 6, 10]]), "video_metadata": [metadata]}
    expected = Qwen3VLProcessor.replace_video_token(stand_in, video, 0)
    assert text_of(model, "qwen3-vl", [1.5, 75.0]) == expected
    assert expected.startswith("<1.5 seconds><|vision_start|><|video_pad|>")


def test_internvl_frames_read_as_its_processor_writes_them() -> None:
    model = StreamModel(tiny_weights("internvl"))
    stand_in = SimpleNamespace(
        start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=9
    )
    video = {"pixel_values_videos": [torch.zeros(2, 3, 24, 24)]}
    expected = InternVLProcessor.replace_video_token(stand_in, video, 0)
    assert text_of(model, "internvl", [0.0, 1.0]) == expected + "\n"


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_smolvlm_frames_read_as_its_processor_writes_them(name: str) -> None:
    model = StreamModel(tiny_weights(name))
    image = processing_smolvlm._prompt_single_image(9, "<fake_token_around_image>", "<image>", "<global-img>")
    times = [processing_smolvlm.FRAME_TIMESTAMP_MESSAGE.format(timestamp=t) for t in ("00:01", "12:30")]
    assert text_of(model, name, [1.0, 750.9]) == "".join(time + image for time in times)
    assert model.vision is not None
    assert model.vision.after_frames == processing_smolvlm.DEFAULT_MEDIA_OUTTRO


def test_gemma3_frames_read_as_its_processor_writes_them() -> None:
    model = StreamModel(tiny_weights("gemma3"))
    image = f"\n\n<start_of_image>{'<image_soft_token>' * 9}<end_of_image>\n\n"
    assert text_of(model, "gemma3", [1.0, 750.9]) == f"[00:01] {image}[12:30] {image}"
    stand_in = SimpleNamespace(full_image_sequence=image)
    assert Gemma3Processor.replace_image_token(stand_in, {"num_crops": [0]}, 0) == image


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl"])
def test_qwen2_vl_frames_stand_between_the_vision_marks(name: str) -> None:
    model = StreamModel(tiny_weights(name))
    image = f"<|vision_start|>{'<|image_pad|>' * 15}<|vision_end|>"
    assert text_of(model, name, [1.0, 750.9]) == f"[00:01] {image}[12:30] {image}"


def test_llava_onevision_frames_end_their_line() -> None:
    model = StreamModel(tiny_weights("llava-onevision"))
    assert text_of(model, "llava-onevision", [1.0]) == f"[00:01] {'<video>' * 10}\n"


def test_llava_frames_end_their_line_and_a_checkpoint_says_how_it_reads_times() -> None:
    assert text_of(StreamModel(tiny_weights("llava")), "llava", [1.0]) == f"[00:01] {'<image>' * 36}\n"
    assert text_of(StreamModel(tiny_weights("llava-lite")), "llava-lite", [750.9]) == f"12:30{'<image>' * 16}\n"


def test_time_texts_can_be_chosen_and_left_out() -> None:
    vision = adapter(tiny_weights("smolvlm"))
    assert vision.time_text("none", 5 * S, 4) == ""
    assert vision.time_text("#{number} at {seconds:.2f} ({clock}) ", 3725 * S, 4) == "#5 at 3725.00 (1:02:05) "
    assert vision.time_text("", 5 * S, 4) == ""


@pytest.mark.parametrize("wrong", ["{hour}", "{", "{0}", "{seconds:q}", "{clock.hour}"])
def test_a_time_format_that_is_not_understood_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"may use \{clock\}, \{seconds\} and \{number\}"):
        adapter(tiny_weights("smolvlm")).time_text(wrong, 5 * S, 4)


# ---- checkpoints that lack something -----------------------------------------------------------


@pytest.mark.parametrize("name", VISION)
def test_a_model_without_its_image_processor_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        StreamModel(dataclasses.replace(tiny_weights(name), image_processor=None))


def test_a_video_processor_will_do() -> None:
    weights = tiny_weights("llava-onevision")
    weights = dataclasses.replace(weights, image_processor=None, video_processor=weights.image_processor)
    assert adapter(weights).frame_size(40, 24) == (20, 20)


@pytest.mark.parametrize("name", [n for n in VISION if "llava" not in n])
def test_a_tokenizer_without_the_marks_of_a_frame_is_refused(name: str) -> None:
    bare = tiny_tokenizer(special=["<|im_end|>"])
    with pytest.raises(ModelError, match="tokenizer has no token '<"):
        StreamModel(dataclasses.replace(tiny_weights(name), tokenizer=bare))


def test_marks_are_taken_from_the_tokenizer_where_it_names_them() -> None:
    weights = tiny_weights("internvl")
    weights.tokenizer.start_image_token = "<image>"
    assert adapter(weights).wrapping() == ("<image>", "</img>\n")


@pytest.mark.parametrize("name", [*TEXT, *VISION])
def test_every_tiny_model_spells_its_text_back(name: str) -> None:
    model = StreamModel(tiny_weights(name))
    script = Script(model, name).text("Größe: 5 m²\n<|im_end|>")
    assert model.tokenizer.decode(script.ids) == "Größe: 5 m²\n<|im_end|>"
