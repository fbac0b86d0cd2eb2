"""The recipe of the built-in model that sees: it trains on what the runtime writes, its trees mean what they say."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.tiny_models import tiny_tokenizer, tiny_weights
from torch import nn

from inf_stream.base.events import Frame
from inf_stream.engine.assemble import Assembler, Turn
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

sys.path.insert(0, str(Path(__file__).parents[1] / "demos" / "train_demo_model"))

import align
import captions
import clips
import samples
from export import graft_of
from network import LowRank, Network
from packing import Batch, Packer
from samples import Branch, Photo, Sample, Words

CELLS = 16
S = 1_000_000_000
PICTURES = [
    captions.Picture(
        i, Path("none.jpg"), tuple(f"A {thing} runs on the {ground} ." for _ in range(3)) + ("Two dogs play .",) * extra
    )
    for i, (thing, ground, extra) in enumerate(
        [("dog", "grass", 2), ("man", "beach", 0), ("woman", "street", 0), ("horse", "sand", 0), ("boy", "snow", 0)] * 3
    )
]


def words() -> Words:
    return Words(tiny_tokenizer(samples.CHAT_TEMPLATE))


def sample() -> Sample:
    return Sample(
        trunk=[
            (Photo(0), 0.0),
            (Photo(1), 61.0),
            ("Who is there?", "A dog."),
            (Photo(2), 3723.0),
            ("And now?", "A man."),
        ],
        branches=[
            Branch(1, "What do you see?", ("One.", "Another one."), "caption"),
            Branch(3, "Did a dog appear?", ("Yes.",), "appear"),
            Branch(5, "When?", ("00:00.", "01:01."), "when"),
        ],
    )


def path_of(batch: Batch, target: int) -> list[int]:
    """Token ids that a target sees, in order of position."""
    seen = batch.mask.flatten(0, 1)[target].nonzero()[:, 0]
    row = target // batch.ids.shape[1]
    order = batch.positions[row][seen].argsort()
    assert batch.positions[row][seen][order].tolist() == list(range(len(seen)))
    return batch.ids[row][seen[order]].tolist()


def test_training_reads_what_the_runtime_writes() -> None:
    """The trunk of a sample and a question after it, against the chunks that the assembler makes of the same events."""
    weights = tiny_weights("llava-lite")
    weights.tokenizer.chat_template = samples.CHAT_TEMPLATE
    model = StreamModel(weights)
    assembler = Assembler(model, "auto")
    chunks: list[Chunk] = []

    def take(chunk: Chunk | None, turn: Turn) -> None:
        assert chunk is not None
        chunks.append(chunk)
        assembler.accept(chunk, turn)

    def answer(text: str) -> None:
        for one in model.ids(text).tolist():
            take(assembler.answer_token(one), Turn.ANSWER)
        assembler.turn = Turn.ANSWERED

    pixels = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    visual = model.encode(pixels)[0]
    take(assembler.opening(), Turn.USER)
    asked = sample()
    for number, one in enumerate(asked.trunk):
        if isinstance(one[0], str):
            take(assembler.question(one[0], 0), Turn.ANSWER)
            answer(str(one[1]))
        else:
            frame = Frame(pixels[0].numpy(), int(float(one[1]) * S), number)
            take(assembler.frame(frame, visual), Turn.USER_FRAME)
    take(assembler.question("When?", 0), Turn.ANSWER)
    written = Chunk.concatenate(chunks)

    batch = Packer(Words(weights.tokenizer), CELLS).pack([asked])
    first = int(batch.targets[(batch.answers == batch.kinds.index("when")).nonzero()[0, 0]])
    ids = path_of(batch, first)
    read = model.embed(torch.tensor(ids)).clone()
    read[written.tags.visual > 0] = visual.embeds.repeat(3, 1)
    assert len(ids) == len(written)
    assert torch.equal(read, written.embeds)
    assert batch.kinds == ["turn", "turn", "caption", "caption", "appear", "when", "when"]


def test_every_answer_of_a_tree_is_as_likely_as_if_it_were_alone() -> None:
    weights = tiny_weights("llama")
    decoder, packer = weights.model, Packer(words(), CELLS)
    many = [sample(), Sample([(Photo(0), 5.0)], [Branch(1, "What do you see?", ("A dog.",), "caption")])]
    batch = packer.pack(many)
    unseen = torch.zeros(batch.mask.shape).masked_fill(~batch.mask, float("-inf"))
    with torch.inference_mode():
        embeds = decoder.get_input_embeddings()(batch.ids)
        together = decoder(inputs_embeds=embeds, attention_mask=unseen[:, None], position_ids=batch.positions).logits
        for target, label in zip(batch.targets.tolist(), batch.labels.tolist(), strict=True):
            alone = decoder(torch.tensor([path_of(batch, target)])).logits[0, -1]
            torch.testing.assert_close(together.flatten(0, 1)[target], alone, rtol=1e-4, atol=1e-4)
            assert label < len(alone)


def test_targets_spell_the_answers_and_their_end() -> None:
    made = words()
    batch = Packer(made, CELLS).pack([sample()])
    told = {}
    for number, kind in enumerate(batch.kinds):
        ids = batch.labels[batch.answers == number].tolist()
        assert ids[-1] == made.stop
        told.setdefault(kind, []).append(tiny_tokenizer().decode(ids[:-1]))
    assert told == {
        "turn": ["A dog.", "A man."],
        "caption": ["One.", "Another one."],
        "appear": ["Yes."],
        "when": ["00:00.", "01:01."],
    }
    weights = [float(batch.weights[batch.answers == n].sum()) for n in range(len(batch.kinds))]
    lengths = [int((batch.answers == n).sum()) for n in range(len(batch.kinds))]
    assert weights == pytest.approx([length**0.5 for length in lengths])


def test_captions_tell_what_is_there_in_which_colour_and_how_many() -> None:
    dog, man = PICTURES[0], PICTURES[1]
    assert {"a dog", "grass"} <= set(dog.shows)
    assert "a man" not in dog.mentions_any
    assert dog.attributes == (("How many dogs are there?", "Two."),)
    assert captions.absent([dog, man], "a horse")
    assert not captions.absent([dog, man], "a beach")
    assert captions.sentence('"a dog , running .') == "A dog, running."


@pytest.mark.parametrize("seed", range(30))
def test_answers_about_streams_are_true(seed: int) -> None:
    """Each question is answered anew from the trunk alone."""
    rng = np.random.default_rng(seed)
    found = samples.stream_sample(rng, PICTURES, int(rng.integers(2, 7)))
    for branch in found.branches:
        shown = [(PICTURES[s.index], at) for s, at in found.trunk[: branch.at] if isinstance(s, Photo)]
        check(branch, shown)


def check(branch: Branch, shown: list[tuple[captions.Picture, float]]) -> None:
    (answer,) = branch.answers
    concept = next((c for c in sorted(captions.CONCEPTS, key=len, reverse=True) if f" {c}" in branch.question), "")
    times = [at for p, at in shown if concept in p.mentions_any]
    clock = samples.format_clock
    match branch.kind:
        case "now":
            assert answer in [captions.sentence(c) for c in shown[-1][0].captions]
        case "at":
            time = branch.question.removeprefix("What was shown at ").rstrip("?")
            then = [p for p, at in shown if clock(int(at * S)) == time]
            assert answer in [f"{time} {captions.sentence(c)}" for c in then[0].captions]
        case "appear":
            assert (answer == "Yes.") == bool(times)
        case "when":
            assert answer == f"{clock(int(times[0] * S))}."
        case "not seen":
            assert not times
        case "is now":
            assert (answer == "Yes.") == (concept in shown[-1][0].mentions_any)
        case "first":
            named = branch.question.removeprefix("Which came first, ").rstrip("?").split(" or ")
            begins = [min(at for p, at in shown if name in p.mentions_any) for name in named]
            assert answer == f"{samples.capital(named[begins[1] < begins[0]])}."
        case _:
            assert branch.kind == "ago"
            assert answer.endswith(" ago.")


def test_a_picture_is_asked_for_what_it_shows_and_for_what_it_does_not() -> None:
    rare = samples.rarest_first(PICTURES)
    rng = np.random.default_rng(0)
    for picture in PICTURES[:5]:
        made = samples.picture_sample(rng, picture, rare)
        for branch in made.branches:
            if branch.kind == "yes/no":
                concept = next(
                    c for c in sorted(captions.CONCEPTS, key=len, reverse=True) if f" {c}?" in branch.question
                )
                assert (branch.answers == ("Yes.",)) == (concept in picture.shows)


@pytest.mark.parametrize("seed", range(12))
def test_clips_do_what_their_answers_say(seed: int) -> None:
    clip = clips.moving(np.random.default_rng(seed))
    assert all(f.shape == (clips.EDGE, clips.EDGE, 3) and f.dtype == np.uint8 for f in clip.frames)
    _, _, answer = clip.questions[0]
    direction = answer.rstrip(".").lower()
    first, last = (f.astype(int) for f in (clip.frames[0], clip.frames[-1]))
    changed = np.abs(first - last).sum(axis=2) > 90
    ys, xs = changed.nonzero()
    spread = {"x": np.ptp(xs), "y": np.ptp(ys)}
    assert max(spread, key=lambda k: spread[k]) == ("x" if direction in ("to the left", "to the right") else "y")
    counted = clips.counting(np.random.default_rng(seed))
    number = clips.NUMBERS.index(counted.questions[0][2].rstrip("."))
    assert 1 <= number <= 6
    again = clips.counting(np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(counted.frames, again.frames, strict=True))


# ---- alignment ---------------------------------------------------------------------------------------


def test_words_are_wanted_by_the_share_of_captions_that_have_them() -> None:
    words = align.vocabulary(PICTURES)
    assert {"dog", "grass", "runs"} <= set(words)
    assert not {"a", "the", "on"} & set(words)
    share = align.wanted_in_pictures(PICTURES[:2], words)
    assert share[0, words.index("dog")] == pytest.approx(3 / 5)
    assert share[1, words.index("dog")] == 0
    assert share[1, words.index("man")] == 1


def test_a_visual_token_that_stands_where_a_word_stands_reads_as_that_word() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(20, 32)
    reader = align.Reader(embeddings, torch.full((20,), 0.1))
    visual = torch.randn(2, CELLS, 32)
    visual[0, 3], visual[1, 7] = 2 * embeddings[4], embeddings[9]
    assert reader(visual).argmax(1).tolist() == [4, 9]
    of_one_length = embeddings / embeddings.norm(dim=-1, keepdim=True) * reader.length
    assert reader.stray(of_one_length[None]) < 1e-6 < reader.stray(2 * of_one_length[None])


def test_what_a_frame_shows_is_wanted_of_the_cell_that_holds_it() -> None:
    shown = [
        frozenset({("red", 0.9, 0.3), ("circle", 0.9, 0.3), ("blue", -0.1, 1.0)}),
        frozenset[tuple[str, float, float]](),
    ]
    wanted = align.wanted_in_frames(shown, ["blue", "circle", "dog", "red"], CELLS)
    assert wanted.nonzero().tolist() == [[0, 7, 1], [0, 7, 3], [0, 12, 0]]


class FakeNetwork(nn.Module):
    """Two visual tokens from a map of eight numbers."""

    tokenizer = staticmethod(lambda text, **_: {"input_ids": [ord(text.strip()[0]) % 16]})

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 2 * 32)
        self.language_model = nn.Module()
        self.language_model.embed_tokens = nn.Embedding(16, 32)

    def visual(self, maps: torch.Tensor) -> torch.Tensor:
        return self.project(maps.flatten(1)).view(-1, 2, 32)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"projector": [self.project.weight], "encoder": [self.project.bias]}


def test_alignment_teaches_what_the_pictures_show_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(align, "RATES", {"projector": 1e-2, "encoder": 1e-2})
    maps = np.eye(4, 8, dtype=np.float16).repeat(40, axis=0)
    words = list("abcd")
    named = torch.eye(4).repeat_interleave(40, 0)
    located = torch.stack([named, torch.zeros_like(named)], 1)
    network = FakeNetwork()
    anywhere = align.Source(0.5, 160, lambda places: named[places], lambda _, places: maps[places])
    in_first = align.Source(0.5, 160, lambda places: located[places], lambda _, places: maps[places])
    align.align(network, words, torch.full((4,), 0.25), [anywhere, in_first], 60, 0, tmp_path / "aligned.pt")
    kept = torch.load(tmp_path / "aligned.pt", weights_only=True)
    assert set(kept) == {"project.weight", "project.bias"}
    reader = align.Reader(align.directions(network, words), torch.full((4,), 0.25))
    network.load_state_dict(kept, strict=False)
    visual = network.visual(torch.eye(4, 8))
    assert reader(visual).argmax(1).tolist() == [0, 1, 2, 3]
    assert reader.cells(visual)[:, 0].argmax(1).tolist() == [0, 1, 2, 3]
    assert (reader.cells(visual)[:, 0].amax(1) > reader.cells(visual)[:, 1].amax(1)).all()
    told = [
        re.findall(r"[\d.]+", line)[-2:] for line in capsys.readouterr().out.splitlines() if line.startswith("step")
    ]
    assert all(float(last) < float(first) for first, last in zip(told[0], told[-1], strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_clips_know_what_each_frame_shows(seed: int) -> None:
    clip = clips.render(np.random.default_rng(seed))
    assert len(clip.words) == len(clip.frames)
    known = {*clips.COLOURS, *clips.SHAPES, *"0123456789"}
    assert all(words and {word for word, *_ in words} <= known for words in clip.words)
    assert known <= set(align.vocabulary(PICTURES))
    moved = clips.moving(np.random.default_rng(seed))
    assert len({words & moved.words[0] for words in moved.words}) == 2
    gone = clips.appearing(np.random.default_rng(seed))
    assert len(set(gone.words)) == 2 or gone.words[0] == gone.words[-1]


# ---- what is shipped, and going on from it --------------------------------------------------------


def small_network(seed: int) -> Network:
    """A network around a tiny model, with two low-rank updates."""
    made = Network.__new__(Network)
    nn.Module.__init__(made)
    made.model = tiny_weights("llava-lite", seed=3).model
    torch.manual_seed(seed)
    for layer in made.language_model.layers[:2]:
        layer.mlp.up_proj = LowRank(layer.mlp.up_proj, 4, 8)
        nn.init.normal_(layer.mlp.up_proj.up)
    for part in (made.model.model.multi_modal_projector, made.model.model.vision_tower):
        for weight in part.parameters():
            nn.init.normal_(weight)
    return made


def test_training_goes_on_from_what_was_exported(tmp_path: Path) -> None:
    one, other = small_network(1), small_network(2)
    state = graft_of(one)
    save_file(state, tmp_path / "graft.safetensors")
    assert not all(torch.equal(weight, graft_of(other)[name]) for name, weight in state.items())
    other.load_graft(tmp_path)
    assert all(torch.equal(weight, graft_of(other)[name]) for name, weight in state.items())
    save_file({"stranger": torch.zeros(1)}, tmp_path / "graft.safetensors")
    with pytest.raises(SystemExit, match="stranger is unknown"):
        other.load_graft(tmp_path)
