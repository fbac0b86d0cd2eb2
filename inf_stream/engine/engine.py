"""The engine: frames, text and questions become cache entries and tokens, one bounded step a call."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.config import AnswerSettings
from inf_stream.base.errors import ModelError, SessionError, StateError
from inf_stream.base.events import Evidence, FinishReason, Frame, Question
from inf_stream.base.state import State
from inf_stream.cache.archive.usual import USUAL_QUESTIONS
from inf_stream.cache.evidence import EvidenceMeter
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.assemble import Assembler, AssemblerState, Turn
from inf_stream.engine.moments import warn_of_moment
from inf_stream.engine.named import MOST_TEXTS, NamedMoments
from inf_stream.engine.pixels import fit_pixels
from inf_stream.engine.protocol import AnswerStep
from inf_stream.engine.reading import ChunkReader, Reading
from inf_stream.engine.sampling import Sampler, TextAssembler
from inf_stream.engine.stopwatch import Stopwatch, untimed
from inf_stream.models.chunk import Chunk, VisualTokens
from inf_stream.models.stream_model import StreamModel

_CHARACTERS_PER_TOKEN = 4
"""Rough length of a token of English; only sizes the pieces streamed text is cut into."""
_MOST_FRAMES_PER_STEP = 8


@dataclass
class _OpenAnswer:
    """An answer being generated: `logits` choose the next token; `unread` is said but not in the cache yet."""

    question: Question
    sampler: Sampler
    text: TextAssembler
    limit_tokens: int
    logits: Float[Tensor, "vocabulary"]
    began_s: float
    asked_in: AssemblerState
    tokens: int = 0
    unread: int | None = None


@dataclass
class _Counts:
    frames: int = 0
    answers: int = 0
    asides: int = 0
    frame_tokens: int | None = None
    first_token_s: float | None = None


class Engine:
    """One stream on one model (`inf_stream.engine.protocol.SteppedEngine`).

    Synchronous and for one thread. An error leaves the cache as it was before the chunk that failed. `stopwatch` times
    the model's work: "encode" (frames of one size), "chunk" (one pass over several tokens) and "decode" (over one
    token of an answer, or of several answers together).
    """

    def __init__(
        self,
        model: StreamModel,
        cache: StreamCache,
        answers: AnswerSettings,
        *,
        time_format: str = "auto",
        stopwatch: Stopwatch = untimed,
    ):
        self.model, self.cache, self.stopwatch, self._answers = model, cache, stopwatch, answers
        self._assembler = Assembler(model, time_format)
        self._reader = ChunkReader(model, cache, stopwatch)
        self._named = NamedMoments(0 if cache.archive is None else MOST_TEXTS)
        self._open: _OpenAnswer | None = None
        self._evidence: tuple[Evidence, ...] = ()
        self._counts = _Counts()
        self._process = psutil.Process()

    @property
    def frames_per_step(self) -> int:
        """Most frames one `ingest_frames` call takes: as many as fill one chunk."""
        if self._counts.frame_tokens is None:
            return 1
        return max(1, min(_MOST_FRAMES_PER_STEP, self.cache.chunk_tokens // self._counts.frame_tokens))

    @property
    def characters_per_step(self) -> int:
        """Most characters of streamed text one `ingest_text` call takes: about one chunk."""
        return self.characters_per_chunk(self.cache.chunk_tokens)

    @staticmethod
    def characters_per_chunk(chunk_tokens: int) -> int:
        """`characters_per_step` of an engine whose cache takes in `chunk_tokens` at once."""
        return _CHARACTERS_PER_TOKEN * chunk_tokens

    # ---- the stream --------------------------------------------------------------------------------

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """Encode frames and write them to the cache, in order.

        Raises:
            ModelError: the model reads text only.
            BudgetError: a frame has more tokens than the cache budget can keep whole.
        """
        self._require_no_answer()
        if self.model.vision is None:
            raise ModelError(
                f"'{self.model.weights.config.model_type}' is a text model and cannot see frames; choose a "
                "vision-language model, e.g. --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
            )
        self._ensure_open()
        pixels = [fit_pixels(f.pixels, self.model.vision.frame_size) for f in frames]
        encoded: list[VisualTokens] = []
        for _, alike in itertools.groupby(pixels, key=lambda p: p.shape):
            with self.stopwatch("encode"):
                encoded += self.model.encode(torch.stack(list(alike)))
        chunks = []
        with self._assembler.undone_on_error():
            for frame, visual in zip(frames, encoded, strict=True):
                chunk = self._assembler.frame(frame, visual)
                self._reader.require_frame_fits(chunk)
                self._assembler.accept(chunk, Turn.USER_FRAME)
                chunks.append(chunk)
            self._reader.read(Chunk.concatenate(chunks))
        self._counts.frames += len(frames)
        self._counts.frame_tokens = max(len(c) for c in chunks)

    def ingest_text(self, text: str, at_ns: int) -> None:
        """Read a piece of streamed text into the cache."""
        self._require_no_answer()
        self._ensure_open()
        if not text:
            return
        chunk = self._assembler.text(text, at_ns)
        self._reader.read(chunk)
        self._assembler.accept(chunk, Turn.USER_TEXT)
        self._named.note(text, self.now_ns, self.now_ns)

    # ---- answers -----------------------------------------------------------------------------------

    def begin_answer(self, question: Question) -> str | None:
        """Read the question's prompt into the cache; of an aside, only until `end_answer`.

        What the archive gives back for it takes part until then, too, of the time that it names, if it does
        (`NamedMoments.read_span`). Returns a warning if the question is about a time
        that a stream of frames does not have.

        Raises:
            BudgetError: the question alone would fill more than half of the cache budget, or, of an aside, the room
                between two evictions.
        """
        self._require_no_answer()
        began_s = time.thread_time()
        self._ensure_open()
        asked_in = self._assembler.place()
        chunk = self._assembler.question(question.text, question.at_ns)
        limit_tokens = question.max_tokens or self._answers.max_tokens
        self._reader.meter = EvidenceMeter(self.cache) if self._counts.frames else None
        if question.aside:
            limit_tokens = min(limit_tokens, self._reader.require_aside_fits(chunk))
            self.cache.set_mark()
        try:
            if self.cache.archive is not None:
                self.cache.open_recall(self._named.read_span(question.text, self.now_ns))
            hidden = self._read_question(chunk)
            self.cache.end_choice(learn=not question.aside)
        except BaseException:
            self.cache.close_recall()
            if question.aside:
                self._leave_aside(asked_in)
            self._reader.meter = None
            raise
        number = -1 - self._counts.asides if question.aside else self._counts.answers
        self._open = _OpenAnswer(
            question,
            Sampler(self._answers, number),
            TextAssembler(self.model.tokenizer),
            limit_tokens,
            self.model.logits(hidden[-1:])[0],
            began_s,
            asked_in,
        )
        if question.aside:
            self._counts.asides += 1
        else:
            self._counts.answers += 1
        return warn_of_moment(question.text, self._assembler.now_ns) if self._counts.frames else None

    def _read_question(self, chunk: Chunk) -> Float[Tensor, "tokens width"]:
        remedy = "shorten it, raise cache.budget_tokens, or send long text as stream text before the question"
        self._reader.require_prompt_fits(chunk, "question", remedy)
        hidden = self._reader.read(chunk)
        self._assembler.accept(chunk, Turn.ANSWER)
        return hidden

    def step_answer(self) -> AnswerStep:
        """Decode one token."""
        answer = self._require_answer()
        self._read_unread(answer)
        token = answer.sampler.draw(answer.logits)
        if answer.tokens == 0:
            self._counts.first_token_s = time.thread_time() - answer.began_s
        if token in self.model.stop_ids:
            return AnswerStep(answer.text.finish(), FinishReason.STOP)
        answer.unread = token
        answer.tokens += 1
        text = answer.text.push(token)
        if answer.tokens >= answer.limit_tokens:
            return AnswerStep(text + answer.text.finish(), FinishReason.LENGTH)
        return AnswerStep(text)

    @property
    def has_unread(self) -> bool:
        """Whether the latest token of an open answer has yet to be read before the next one can be drawn."""
        return self._open is not None and self._open.unread is not None

    def begin_reading(self) -> Reading:
        """That token's pass over the weights, to be made together with those of other engines; it is `has_unread`.

        Nothing changes until `Reading.end`; one that never ends leaves `step_answer` to read the token by itself.
        """
        answer = self._require_answer()
        assert answer.unread is not None, "something is unread"
        chunk = self._assembler.answer_token(answer.unread)
        step = self._reader.begin(chunk)

        def end(logits: Float[Tensor, "vocabulary"]) -> None:
            self._reader.commit(step)
            self._have_read(answer, chunk, logits)

        return Reading(chunk, step, end)

    def end_answer(self) -> int:
        """Close the answer, finished or not; what was said stays in the cache, but of an aside nothing does.

        Returns its number of tokens.
        """
        answer = self._require_answer()
        self._evidence = () if self._reader.meter is None else self._reader.meter.most()
        self._reader.meter = None
        self._named.hear(answer.question, answer.text.given, answer.asked_in.now_ns, self.now_ns)
        if answer.question.aside:
            self._open = None
            self.cache.close_recall()
            self._leave_aside(answer.asked_in)
            return answer.tokens
        try:
            self._read_unread(answer)
        finally:
            self.cache.close_recall(may_stay=True)
            self._open = None
            self._assembler.turn = Turn.ANSWERED
        return answer.tokens

    def evidence(self) -> tuple[Evidence, ...]:
        """The frames that weighed most on the latest answer, its question included, the heaviest first."""
        return self._evidence

    def stats(self) -> dict[str, float | int | str]:
        """Counts and sizes now.

        `first_token_cpu_s` is what the latest answer's first token cost this thread: on a busy machine it says more
        about the engine than the wall clock does.
        """
        first_token_s = self._counts.first_token_s
        return {
            "tokens_seen": self.cache.seen_tokens,
            "tokens_kept": self.cache.used_tokens,
            "budget_tokens": self.cache.budget_tokens,
            "evictions": self.cache.evictions,
            "frames": self._counts.frames,
            "answers": self._counts.answers,
            "cache_bytes": self.cache.bytes(),
            "process_bytes": self._process.memory_info().rss,
            "policy": self.cache.policy.name,
            **self._archive_stats(),
        } | ({} if first_token_s is None else {"first_token_cpu_s": round(first_token_s, 4)})

    def _archive_stats(self) -> dict[str, float | int | str]:
        archive = self.cache.archive
        if archive is None:
            return {}
        return {
            "archive_blocks": archive.blocks,
            "archive_tokens": archive.blocks * archive.block_tokens,
            "archive_bytes": archive.bytes(),
            "archive_merged": archive.merged,
        }

    # ---- kept on disk ------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The latest stream time, and with it where a restored session goes on."""
        return self._assembler.now_ns

    @property
    def is_answering(self) -> bool:
        """Whether an answer is open."""
        return self._open is not None

    def state(self) -> State:
        """Everything that later answers depend on, but for the weights; valid until the next step.

        Raises:
            SessionError: an answer is open.
        """
        self._require_no_answer()
        counts = {name: getattr(self._counts, name) for name in ("frames", "answers", "asides", "frame_tokens")}
        parts = {"cache": self.cache.state(), "assembler": self._assembler.state(), "named": self._named.state()}
        return State.of(
            parts | {"counts": State(facts=counts)},
            weights=self.model.fingerprint(),
            policy=self._policy_facts(),
            sizes=self._size_facts(),
        )

    def restore(self, state: State) -> None:
        """Go on where another engine was: with the same weights, policy and sizes, to the same answers.

        Raises:
            StateError: the state is another model's, or of other settings. An engine that raised it must not be
                used any more.
            SessionError: this engine has taken something in already.
        """
        if self._assembler.turn is not Turn.UNOPENED:
            raise SessionError("a session can be restored into a fresh engine only")
        if state.fact("weights", str) != self.model.fingerprint():
            raise StateError("the saved session is one of another model, or of the same in another number format")
        for name, own in (("policy", self._policy_facts()), ("sizes", self._size_facts())):
            saved = state.fact(name, dict)
            for key in dict.fromkeys([*own, *saved]):
                if own.get(key) != saved.get(key):
                    raise StateError(
                        f"the saved session has {key} {saved.get(key)}, this one {own.get(key)}; resume it with the "
                        "settings it was saved with"
                    )
        counts = state.part("counts")
        self._counts.frames, self._counts.answers = counts.count("frames"), counts.count("answers")
        if "asides" in counts.facts:  # files of 0.1.0 have none
            self._counts.asides = counts.count("asides")
        if counts.facts.get("frame_tokens") is not None:
            self._counts.frame_tokens = counts.count("frame_tokens")
        self.cache.restore(state.part("cache"))
        self._assembler.restore(state.part("assembler"))
        if "named" in state.facts:  # files of 0.1.0 have none
            self._named.restore(state.part("named"))

    def _policy_facts(self) -> dict[str, Any]:
        policy = self.cache.policy
        return {"policy": policy.name} | dataclasses.asdict(policy)

    def _size_facts(self) -> dict[str, Any]:
        cache = self.cache
        return {
            "budget_tokens": cache.budget_tokens,
            "chunk_tokens": cache.chunk_tokens,
            "evict_every_tokens": cache.evict_every_tokens,
        } | ({} if cache.archive is None else cache.archive.facts())

    # ---- inside ------------------------------------------------------------------------------------

    def _leave_aside(self, asked_in: AssemblerState) -> None:
        self.cache.return_to_mark()
        self._assembler.return_to(asked_in)

    def _read_unread(self, answer: _OpenAnswer) -> None:
        if answer.unread is None:
            return
        chunk = self._assembler.answer_token(answer.unread)
        hidden = self._reader.read(chunk, "decode")
        self._have_read(answer, chunk, self.model.logits(hidden)[0])

    def _have_read(self, answer: _OpenAnswer, chunk: Chunk, logits: Float[Tensor, "vocabulary"]) -> None:
        self._assembler.accept(chunk, Turn.ANSWER)
        answer.unread, answer.logits = None, logits

    def _ensure_open(self) -> None:
        if self._assembler.turn is not Turn.UNOPENED:
            return
        chunk = self._assembler.opening()
        if chunk is not None:
            remedy = "shorten model.system_prompt or raise cache.budget_tokens"
            self._reader.require_prompt_fits(chunk, "system prompt", remedy)
            self._reader.read(chunk)
            self._assembler.accept(chunk, Turn.USER)
            self.cache.close_opening()
        self._assembler.turn = Turn.USER
        if self.cache.archive is not None:
            self._hear_usual_questions()

    def _hear_usual_questions(self) -> None:
        """Read a few as asides, so that the first real one can be told from them."""
        for text in USUAL_QUESTIONS:
            chunk = self._assembler.question(text, 0)
            if len(chunk) > self.cache.room_tokens:
                return
            self.cache.set_mark()
            try:
                self.cache.open_recall()
                self._reader.read(chunk)
                self.cache.end_choice()
            finally:
                self.cache.close_recall()
                self.cache.return_to_mark()

    def _require_no_answer(self) -> None:
        if self._open is not None:
            raise SessionError(f"answer to question '{self._open.question.id}' is still open; end it first")

    def _require_answer(self) -> _OpenAnswer:
        if self._open is None:
            raise SessionError("no answer is open; begin one first")
        return self._open
