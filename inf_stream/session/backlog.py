"""All that waits for the engine, and what of it goes next."""

from dataclasses import dataclass

from inf_stream.base.events import Frame, FrameArrived, InputEvent, Question, QuestionAsked, TextArrived
from inf_stream.session.limits import SessionLimits, StepSizes
from inf_stream.session.queue import FrameQueue, QueueRule, TextPiece, TextQueue, cut_text
from inf_stream.session.steps import IngestFrames, IngestText


@dataclass(frozen=True, slots=True)
class WaitingQuestion:
    """A question with its place among frames and text, and when it came (a reading of the driver's clock)."""

    question: Question
    in_order: bool
    arrival: int
    asked_ns: int


@dataclass(frozen=True, slots=True)
class Discarded:
    """What waited when a backlog was emptied."""

    frames: tuple[Frame, ...]
    text_characters: int
    questions: tuple[Question, ...]


class Backlog:
    """Frames, text and questions in three bounded queues, with one order of arrival over all of them.

    Questions go first, oldest first, but one `in_order` only when nothing older waits. Else the oldest frames or text
    go, never beyond an `in_order` question:

        arrival   0  1  2  3  4  5  6
                  f  f  f  q  f  t  f      q in order: [f f f] q [f] [t] [f]
                                           q otherwise: q [f f f f] [t] [f]
    """

    def __init__(self, sizes: StepSizes, limits: SessionLimits):
        self._sizes = sizes
        self._limits = limits
        self._frames = FrameQueue(limits.queue_frames, limits.rule)
        self._texts = TextQueue(max(limits.queue_characters, sizes.characters_per_step))
        self._questions: list[WaitingQuestion] = []
        self._next_arrival = 0

    # ---- how full ----------------------------------------------------------------------------------

    @property
    def frames(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._frames or self._texts or self._questions)

    @property
    def is_full(self) -> bool:
        """Whether some source must wait: the next frame, step's worth of text or question may not be taken."""
        return (
            (self._limits.rule is QueueRule.WAIT and self._frames.is_full)
            or not self._texts.has_room(self._sizes.characters_per_step)
            or self.is_full_of_questions
        )

    @property
    def is_full_of_questions(self) -> bool:
        """Whether no further question may be added."""
        return len(self._questions) >= self._limits.queue_questions

    def has_room(self, event: InputEvent) -> bool:
        """Whether the event can be added now, or needs no room."""
        match event:
            case FrameArrived():
                return self._limits.rule is not QueueRule.WAIT or not self._frames.is_full
            case TextArrived(text):
                return self._texts.has_room(len(text))
            case QuestionAsked():
                return not self.is_full_of_questions
            case _:
                return True

    # ---- in ----------------------------------------------------------------------------------------

    def add_frame(self, frame: Frame) -> Frame | None:
        """Returns the frame that the queue's rule left out, if any.

        Raises:
            SessionError: the queue is full under WAIT.
        """
        left_out = self._frames.put(frame, self._next_arrival)
        self._next_arrival += 1
        return left_out

    def add_text(self, text: str, at_ns: int) -> None:
        """Add text, cut into steps.

        Raises:
            SessionError: it does not fit; none of it was added.
        """
        self._texts.require_room(len(text))
        for piece in cut_text(text, self._sizes.characters_per_step):
            self._texts.put(TextPiece(piece, at_ns, self._next_arrival))
            self._next_arrival += 1

    def add_question(self, question: Question, *, in_order: bool, asked_ns: int) -> None:
        """Add a question that `has_room` allows."""
        assert not self.is_full_of_questions, "questions are bounded"
        self._questions.append(WaitingQuestion(question, in_order, self._next_arrival, asked_ns))
        self._next_arrival += 1

    # ---- out ---------------------------------------------------------------------------------------

    def holds_question(self, question_id: str) -> bool:
        """Whether a question with this id waits."""
        return any(waiting.question.id == question_id for waiting in self._questions)

    def remove_question(self, question_id: str) -> Question:
        """Take out a question that waits."""
        found = next(w for w in self._questions if w.question.id == question_id)
        self._questions.remove(found)
        return found.question

    def discard(self) -> Discarded:
        """Empty all queues."""
        discarded = Discarded(
            self._frames.take(len(self._frames)),
            sum(len(self._texts.take().text) for _ in range(len(self._texts))),
            tuple(waiting.question for waiting in self._questions),
        )
        self._questions.clear()
        return discarded

    def take(self, *, flush: bool) -> IngestFrames | IngestText | WaitingQuestion | None:
        """Remove and return what goes next, or None if nothing may go yet.

        `flush` says that nothing will follow, so that `full_steps` holds no frames back.
        """
        ready = self._ready_question()
        if ready is not None:
            self._questions.remove(ready)
            return ready
        if self._is_text_next():
            piece = self._texts.take()
            return IngestText(piece.text, piece.at_ns)
        count = self._ready_frames(flush=flush)
        return IngestFrames(self._frames.take(count)) if count else None

    def is_ready(self, *, flush: bool) -> bool:
        """Whether `take` would return something."""
        return self._ready_question() is not None or self._is_text_next() or self._ready_frames(flush=flush) > 0

    def _ready_question(self) -> WaitingQuestion | None:
        oldest = min(self._oldest_frame(), self._oldest_text())
        return next((w for w in self._questions if not w.in_order or w.arrival < oldest), None)

    def _is_text_next(self) -> bool:
        return self._oldest_text() < self._oldest_frame()

    def _ready_frames(self, *, flush: bool) -> int:
        barriers = [w.arrival for w in self._questions if w.in_order]
        barrier = min([self._oldest_text(), *barriers])
        ready = self._frames.count_before(barrier)
        portion = min(self._sizes.frames_per_step, self._frames.capacity)
        is_followed = flush or barrier < self._next_arrival
        if self._limits.full_steps and ready < portion and not is_followed:
            return 0
        return min(ready, portion)

    def _oldest_frame(self) -> int:
        return self._frames.oldest_arrival(self._next_arrival)

    def _oldest_text(self) -> int:
        return self._texts.oldest_arrival(self._next_arrival)

    # ---- invariants --------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert that all queues are bounded and ordered."""
        assert len(self._frames) <= self._frames.capacity, "the frame queue is bounded"
        assert 0 <= self._texts.characters <= self._texts.capacity, "the text queue is bounded"
        assert len(self._questions) <= self._limits.queue_questions, "the question queue is bounded"
        ids = [waiting.question.id for waiting in self._questions]
        assert len(set(ids)) == len(ids), "question ids are unique"
        queues = (self._frames.arrivals(), self._texts.arrivals(), [w.arrival for w in self._questions])
        for arrivals in queues:
            assert arrivals == sorted(arrivals), "each queue is in order of arrival"
        everything = [arrival for arrivals in queues for arrival in arrivals]
        assert len(set(everything)) == len(everything), "arrival numbers are unique"
        assert all(arrival < self._next_arrival for arrival in everything), "arrival numbers lie in the past"
