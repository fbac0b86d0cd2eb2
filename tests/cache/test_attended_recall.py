"""Blocks chosen by attention: as written out token by token, and where mean keys see nothing."""

from dataclasses import fields, replace

import pytest
import torch
from support.toy_stream import TagMaker, toy_inputs, toy_layout
from test_archive import archived, live
from torch import Tensor

from inf_stream.base.config import ArchiveSettings, settings_from_mapping
from inf_stream.base.errors import ConfigError
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive import attended, recall
from inf_stream.cache.archive.attended import AttentionBallot
from inf_stream.cache.archive.ballots import MeansBallot
from inf_stream.cache.archive.recall import Recall
from inf_stream.cache.stream_cache import StreamCache

SCALING = 0.3


def heard(cache: StreamCache, parts: list[list[tuple[Tensor, Tensor, Tensor]]]) -> Recall:
    """A question in parts, of which each layer's inputs are given; the recall is left open."""
    cache.set_mark()
    cache.open_recall()
    tags = TagMaker()
    tags.segment = 10_000
    for inputs in parts:
        step = cache.begin(tags.text(inputs[0][0].shape[1]))
        for layer, (q, k, v) in enumerate(inputs):
            step.attend(layer, q, k, v, SCALING)
        cache.commit(step)
    assert isinstance(cache.recall, Recall)
    return cache.recall


def leave(cache: StreamCache) -> None:
    cache.end_choice(learn=False)
    cache.close_recall()
    cache.return_to_mark()


def written_out(cache: StreamCache, layer: int, queries: Tensor) -> Tensor:
    """The score of every block, one token of the question and one head at a time."""
    archive = cache.archive
    assert archive is not None
    places = torch.nonzero(archive.candidates())[:, 0]
    keys, filled = archive.read(layer, places)[0], archive.filled(places)
    first, tokens = archive.spans(places)
    block, group = archive.block_tokens, queries.shape[0] // keys.shape[0]
    half = (block + 1) // 2
    scores = torch.zeros(len(places), dtype=torch.float64)
    for head, one_head in enumerate(queries):
        for query in one_head:
            logits = (keys[head // group] @ (query * SCALING)).masked_fill(~filled, -torch.inf)
            share = logits.double().softmax(-1).view(len(places), block)
            for n in range(len(places)):
                own = float(share[n].sum())
                for m in range(len(places)):
                    if any(archive.frames()[places[i]] != NO_FRAME for i in (n, m)):
                        continue
                    if first[m] + tokens[m] == first[n]:
                        own = max(own, float(share[m, half:].sum()))
                    if first[n] + tokens[n] == first[m]:
                        own = max(own, float(share[m, :half].sum()))
                scores[n] = max(float(scores[n]), own)
    return scores


@pytest.mark.parametrize("most", [1 << 22, 40], ids=["at once", "in pieces"])
@pytest.mark.parametrize("policy", ["inf-mllm", "streaming-llm", "h2o"])
def test_scores_are_those_written_out(policy: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attended, "_MOST_LOGITS", most)
    layout = toy_layout(query_heads=4, kv_heads=2)
    cache = archived(policy, layout, choose_by="attention")
    live(cache, TagMaker(), 0, 30)
    parts = [toy_inputs(layout, 3, 77), toy_inputs(layout, 2, 78)]
    (ballot,) = heard(cache, parts).ballots
    assert isinstance(ballot, AttentionBallot)
    for layer in range(layout.layers):
        both = torch.cat([part[layer][0] for part in parts], dim=1)
        expected = written_out(cache, layer, both)
        if layer in ballot._strongest:
            assert torch.allclose(ballot._strongest[layer].double(), expected, atol=1e-5)
    assert 0 in ballot._strongest
    leave(cache)
    cache.check()


def record(choose_by: str, names: Tensor) -> StreamCache:
    """A record of noise in which every 32nd token is a name."""
    layout = toy_layout(layers=1, query_heads=1, kv_heads=1, head_dim=16)
    cache = archived("streaming-llm", layout, choose_by=choose_by, recall_tokens=64)
    tags, random = TagMaker(), torch.Generator().manual_seed(1)
    for number in range(len(names) * 32 // 8):
        keys = torch.randn(1, 8, 16, generator=random, dtype=torch.float64)
        if number % 4 == 3:
            keys[0, 6] = names[number // 4]
        step = cache.begin(tags.text(8))
        step.attend(0, keys, keys, keys, SCALING)
        cache.commit(step)
    return cache


def found(cache: StreamCache, name: Tensor) -> set[int]:
    """Numbers of the tokens that are recalled for a question of filler and a name."""
    asked = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    asked[0, 3] = name
    cache.set_mark()
    cache.open_recall()
    step = cache.begin(TagMaker().text(6))
    step.attend(0, asked, torch.zeros_like(asked), torch.zeros_like(asked), SCALING)
    cache.commit(step)
    cache.end_choice(learn=False)
    assert cache.recall is not None
    assert cache.archive is not None
    first, tokens = cache.archive.spans(cache.recall.chosen(0))
    cache.close_recall()
    cache.return_to_mark()
    return {n for one, count in zip(first.tolist(), tokens.tolist(), strict=True) for n in range(one, one + count)}


def test_one_token_is_enough_and_what_follows_it_comes_along() -> None:
    names = torch.randn(30, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sign() * 2.5
    attended_to, by_means = record("attention", names), record("means", names)
    around = {n: set(range(32 * n + 28, 32 * n + 34)) for n in range(2, 20)}
    assert all(around[n] <= found(attended_to, names[n]) for n in around)
    assert sum(around[n] <= found(by_means, names[n]) for n in around) < len(around) // 2


def test_by_default_text_is_attended_to_and_frames_are_not_and_each_gets_half() -> None:
    cache = archived("streaming-llm", toy_layout())
    live(cache, TagMaker(), 0, 60)
    archive = cache.archive
    assert archive is not None
    places = torch.nonzero(archive.candidates())[:, 0]
    is_text = archive.frames()[places] == NO_FRAME
    text, frames = places[is_text], places[~is_text]
    few = 4
    for some, expected in (
        (torch.cat((text, frames)), {AttentionBallot: few, MeansBallot: few}),
        (torch.cat((text[:1], frames)), {AttentionBallot: 1, MeansBallot: 2 * few - 1}),
        (torch.cat((text, frames[:1])), {AttentionBallot: 2 * few - 1, MeansBallot: 1}),
        (text, {AttentionBallot: 2 * few}),
        (frames, {MeansBallot: 2 * few}),
    ):
        ballots = recall._ballots(archive, some.sort().values, 2 * few)
        assert {type(ballot): ballot.seats for ballot in ballots} == expected
        for ballot in ballots:
            wanted = isinstance(ballot, AttentionBallot)
            assert bool(((archive.frames()[ballot.places] == NO_FRAME) == wanted).all())


def test_of_much_text_those_that_mean_keys_prefer_are_attended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = torch.randn(30, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sign() * 2.5
    cache = record("auto", names)
    assert 2 in found(cache, names[0]) or 28 in found(cache, names[0])
    whole = {n: found(cache, names[n]) for n in range(2, 20)}
    monkeypatch.setattr(recall, "MOST_TEXT", 1000)
    assert {n: found(cache, names[n]) for n in range(2, 20)} == whole
    monkeypatch.setattr(recall, "MOST_TEXT", 6)
    cache.set_mark()
    cache.open_recall()
    assert isinstance(cache.recall, Recall)
    (ballot,) = cache.recall.ballots
    assert isinstance(ballot, AttentionBallot)
    queries = names[5].expand(1, 2, 16).clone()
    cache.archive.usual.hear(0, queries)  # type: ignore[union-attr]
    scores = ballot.scores(0, queries, SCALING)
    preferred = ballot.by_means(0).topk(6).indices
    beside = {int(n) + step for n in preferred for step in (-1, 0, 1)}
    assert {int(n) for n in torch.nonzero(scores)[:, 0]} <= beside
    assert len(torch.nonzero(scores)) >= 6
    cache.close_recall()
    cache.return_to_mark()


def test_there_are_as_many_attended_to_as_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "MOST_TEXT", 2)
    names = torch.randn(12, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sign()
    cache = record("auto", names)
    cache.archive.sizes = replace(cache.archive.sizes, recall_tokens=32 * 5)  # type: ignore[union-attr]
    queries = torch.randn(1, 2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (ballot,) = Recall(cache.archive, 0, None).ballots  # type: ignore[arg-type]
    cache.archive.usual.hear(0, queries)  # type: ignore[union-attr]
    ballot.begin()
    assert len(torch.nonzero(ballot.scores(0, queries, SCALING))) >= ballot.seats == 5


def test_what_took_the_place_of_a_block_does_not_speak_for_its_neighbours() -> None:
    """While a long question is read, its own beginning may be archived; it is much like the question's end."""
    names = torch.randn(12, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sign() * 2.5
    cache = record("attention", names)
    archive = cache.archive
    assert archive is not None
    ballot = AttentionBallot(archive, torch.nonzero(archive.candidates())[:, 0], 1)
    asked = names[5].expand(1, 2, 16).clone()
    ballot.begin()
    expected = ballot.scores(0, asked, SCALING)
    again = AttentionBallot(archive, ballot.places, 1)
    store = archive._store
    assert store is not None
    store.host_blocks = store.written  # the next block takes the place of the oldest
    store.write(*2 * [names[5].expand(1, 1, 1, 32, 16)])
    again.begin()
    assert again.gone.tolist() == [0]
    again.vote(0, asked, SCALING)
    assert again.elected().tolist() == [int(expected.argmax())]
    assert torch.allclose(again._strongest[0][1:], expected[1:], atol=1e-4)
    again._stale[:] = True
    assert torch.equal(again.scores(0, asked, SCALING), again._strongest[0])


def test_the_setting_is_known_by_its_names() -> None:
    for name in ("auto", "attention", "means"):
        assert settings_from_mapping({"archive": {"choose_by": name}}).archive.choose_by == name
    (help_text,) = (f.metadata["doc"] for f in fields(ArchiveSettings) if f.name == "choose_by")
    assert f"up to {recall.MOST_TEXT} pieces" in help_text
    with pytest.raises(ConfigError, match="choose_by"):
        settings_from_mapping({"archive": {"choose_by": "chance"}})
