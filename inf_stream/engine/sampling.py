"""Choosing the next token, and turning tokens into text as they come."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inf_stream.base.config import AnswerSettings


class Sampler:
    """Draws tokens of one answer; the same seed and answer number draw the same tokens."""

    def __init__(self, settings: AnswerSettings, answer_number: int):
        self._settings = settings
        self._random = torch.Generator().manual_seed(hash((settings.seed, answer_number)) % (1 << 63))
        self._said: list[int] = []

    def draw(self, logits: Float[Tensor, "vocabulary"]) -> int:
        """The next token id.

        Temperature 0 takes the likeliest; otherwise nucleus sampling (arXiv 1904.09751). The repetition penalty
        (arXiv 1909.05858) divides positive and multiplies negative logits of tokens of this answer.
        """
        logits = self._penalised(logits)
        if self._settings.temperature == 0:
            token = int(logits.argmax())
        else:
            token = self._nucleus((logits / self._settings.temperature).softmax(-1).cpu())
        self._said.append(token)
        return token

    def _penalised(self, logits: Float[Tensor, "vocabulary"]) -> Float[Tensor, "vocabulary"]:
        penalty = self._settings.repetition_penalty
        if penalty == 1.0 or not self._said:
            return logits
        said = torch.tensor(sorted(set(self._said)), device=logits.device)
        found = logits[said]
        return logits.index_copy(0, said, torch.where(found > 0, found / penalty, found * penalty))

    def _nucleus(self, probabilities: Float[Tensor, "vocabulary"]) -> int:
        ordered, ids = probabilities.sort(descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= self._settings.top_p
        outside[0] = False
        ordered = ordered.masked_fill(outside, 0.0)
        return int(ids[torch.multinomial(ordered, 1, generator=self._random)])


class TextAssembler:
    """Text of an answer, given out as soon as its characters are complete.

    A character of several bytes may take several tokens; a tokenizer may also join a token to the one before. So
    the text of the tokens since the last complete place is decoded anew each time, a few tokens at most.

    Attributes:
        given: all that was given out.
    """

    _LONGEST = 16

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.given = ""
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """Text that became complete with this token; may be empty."""
        self._pending.append(token_id)
        text = self._new_text()
        if text.endswith("�") and len(self._pending) < self._LONGEST:
            return ""
        return self._give(text)

    def finish(self) -> str:
        """Text of an incomplete character at the end, as a replacement character; usually empty."""
        return self._give(self._new_text()) if self._pending else ""

    def _give(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        self.given += text
        return text

    def _new_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str), "one sequence gives one text"
        return text
