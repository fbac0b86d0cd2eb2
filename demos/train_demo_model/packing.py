"""Samples as trees of tokens: each piece of a stream hangs on the one before it, each question on the piece it follows.

A token sees its own piece up to itself and all pieces above. So one forward pass answers all questions of a stream,
each as if it had been the only one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from samples import Sample, Shown, Words
from torch import Tensor


@dataclass
class Batch:
    """Samples side by side, padded to the longest.

    Attributes:
        ids: token ids, 0 where a visual token or nothing goes, ``[samples, tokens]``.
        shown: what is seen, in order; each takes `cells` tokens.
        visual: where the visual tokens go among all tokens, ``[shown * cells]``.
        positions: of each token in its own path, ``[samples, tokens]``.
        mask: which token sees which, ``[samples, tokens, tokens]``.
        targets: places whose next token is learned, among all tokens, ``[targets]``.
        labels: that next token, ``[targets]``.
        weights: how much each counts; the tokens of an answer of n share sqrt(n), ``[targets]``.
        answers: which answer each target belongs to, ``[targets]``.
        kinds: kind of each answer.
        choices: (answer, how many): a right one, followed by wrong ones to the same question.
    """

    ids: Tensor
    shown: list[Shown]
    visual: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    labels: Tensor
    weights: Tensor
    answers: Tensor
    kinds: list[str]
    choices: list[tuple[int, int]]

    def to(self, device: torch.device) -> "Batch":
        """With its tensors on `device`."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)})


class Packer:
    """Lays samples out.

    Args:
        words: token ids of the runtime's turns.
        cells: visual tokens a frame.
    """

    def __init__(self, words: Words, cells: int):
        self._words, self._cells = words, cells

    def pack(self, samples: Sequence[Sample]) -> Batch:
        """All samples as one batch."""
        trees = [self._tree(s) for s in samples]
        longest = max(t.length for t in trees)
        starts = [longest * i for i in range(len(trees))]
        answers_before = [sum(len(t.kinds) for t in trees[:i]) for i in range(len(trees))]
        mask = torch.zeros(len(trees), longest, longest, dtype=torch.bool)
        for one, tree in zip(mask, trees, strict=True):
            one[: tree.length, : tree.length] = tree.mask()
            one.fill_diagonal_(True)
        return Batch(
            ids=_padded([t.ids for t in trees], longest),
            shown=[s for t in trees for s in t.shown],
            visual=torch.tensor([v + start for t, start in zip(trees, starts, strict=True) for v in t.visual]),
            positions=_padded([t.positions for t in trees], longest),
            mask=mask,
            targets=torch.tensor([v + start for t, start in zip(trees, starts, strict=True) for v in t.targets]),
            labels=torch.tensor([v for t in trees for v in t.labels]),
            weights=torch.tensor([v for t in trees for v in t.weights]),
            answers=torch.tensor([a + b for t, b in zip(trees, answers_before, strict=True) for a in t.answers]),
            kinds=[k for t in trees for k in t.kinds],
            choices=[(c + b, n) for t, b in zip(trees, answers_before, strict=True) for c, n in t.choices],
        )

    def _tree(self, sample: Sample) -> "_Tree":
        tree, words = _Tree(), self._words
        tree.text(words.opening)
        ends, answered = [tree.node], [False]
        for one in sample.trunk:
            if isinstance(one[0], str):
                tree.text(words.question(one[0], answered=answered[-1]))
                tree.answer(words.answer(str(one[1])), "turn")
            else:
                tree.text(words.time(float(one[1]), answered=answered[-1]))
                tree.frame(one[0], self._cells)
                tree.text(words.after_frame)
            ends.append(tree.node)
            answered.append(isinstance(one[0], str))
            tree.grow(tree.node)
        for branch in sample.branches:
            tree.grow(ends[branch.at])
            tree.text(words.question(branch.question, answered=answered[branch.at]))
            asked = tree.node
            for answer in branch.answers:
                tree.grow(asked)
                tree.answer(words.answer(answer), branch.kind)
            if branch.wrong:
                tree.choices.append((len(tree.kinds) - 1, 1 + len(branch.wrong)))
            for answer in branch.wrong:
                tree.grow(asked)
                tree.answer(words.answer(answer), f"not {branch.kind}", wanted=False)
        return tree


class _Tree:
    """Tokens of one sample; a node is a run of tokens with one parent."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.shown: list[Shown] = []
        self.visual: list[int] = []
        self.targets: list[int] = []
        self.labels: list[int] = []
        self.weights: list[float] = []
        self.answers: list[int] = []
        self.kinds: list[str] = []
        self.choices: list[tuple[int, int]] = []
        self.node = 0
        self._parents = [-1]
        self._depths = [0]
        self._lasts = [-1]
        self._nodes: list[int] = []

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.ids)

    def grow(self, parent: int) -> None:
        """What follows hangs on the end of `parent`."""
        self.node = len(self._parents)
        self._parents.append(parent)
        self._depths.append(self._depths[parent])
        self._lasts.append(self._lasts[parent])

    def text(self, ids: Sequence[int]) -> None:
        """Tokens that are read."""
        for one in ids:
            self._lasts[self.node] = self.length
            self.ids.append(one)
            self.positions.append(self._depths[self.node])
            self._nodes.append(self.node)
            self._depths[self.node] += 1

    def frame(self, shown: Shown, cells: int) -> None:
        """Visual tokens."""
        self.shown.append(shown)
        self.visual.extend(range(self.length, self.length + cells))
        self.text([0] * cells)

    def answer(self, ids: Sequence[int], kind: str, *, wanted: bool = True) -> None:
        """Tokens that are learned, or only weighed; the last of them, the stop, is not read on."""
        self.targets.append(self._lasts[self.node])
        self.targets.extend(range(self.length, self.length + len(ids) - 1))
        self.labels.extend(ids)
        self.weights.extend([len(ids) ** -0.5 if wanted else 0.0] * len(ids))
        self.answers.extend([len(self.kinds)] * len(ids))
        self.kinds.append(kind)
        self.text(ids[:-1])

    def mask(self) -> Tensor:
        """Which token sees which, ``[tokens, tokens]``."""
        above = torch.eye(len(self._parents), dtype=torch.bool)
        for node, parent in enumerate(self._parents):
            if parent >= 0:
                above[node] |= above[parent]
        nodes, order = torch.tensor(self._nodes), torch.arange(self.length)
        return above[nodes][:, nodes] & (order[:, None] >= order[None])


def _padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
