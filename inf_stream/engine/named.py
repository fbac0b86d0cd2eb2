"""A small memory of moments by what was said of them, so that a question can name one: "after the woman left"."""

import textwrap
from collections import OrderedDict

from inf_stream.base.clock import nanoseconds
from inf_stream.base.errors import StateError
from inf_stream.base.events import Question
from inf_stream.base.state import State
from inf_stream.engine.moments import AROUND_S, names_time, read_clocks_ns, read_span
from inf_stream.engine.phrases import (
    affirmed_in,
    asked_in,
    content_words,
    is_about_now,
    is_never_past,
    names_a_side,
    read_events,
)

MOST_TEXTS = 4096
"""Texts that are known at once; the one whose latest mention is longest ago goes first."""
MOST_CHARACTERS = 200
"""Of one text; a longer one is cut into several between words."""


class NamedMoments:
    """The words of texts, and from when to when in the stream each text may speak of, in ns.

    Known are streamed text, answers, and questions that an answer affirms: by "Yes", by a time, or by what a standing
    question expects. An answer speaks of the clock times in it; else of the time that its question names; else, if
    that is about the present, of the present; else of any time until then. What is denied names nothing.

    Args:
        most_texts: that are known at once; with 0 nothing ever is.
    """

    def __init__(self, most_texts: int = MOST_TEXTS):
        self._most_texts = most_texts
        self._spans: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spans)

    # ---- in ----------------------------------------------------------------------------------------

    def note(self, text: str, from_ns: int, to_ns: int) -> None:
        """Something was said of a time of the stream; said again, it speaks of all from the first time to the last."""
        for piece in textwrap.wrap(text.casefold(), MOST_CHARACTERS, break_on_hyphens=False):
            if words := " ".join(sorted(content_words(piece))):
                first_ns, last_ns = self._spans.pop(words, (from_ns, to_ns))
                self._spans[words] = min(first_ns, from_ns), max(last_ns, to_ns)
        while len(self._spans) > self._most_texts:
            self._spans.popitem(last=False)

    def hear(self, question: Question, answer: str, seen_ns: int, now_ns: int) -> None:
        """A question was answered at `now_ns`, when the stream had been seen up to `seen_ns`.

        An aside is heard only if it `expect`s something, and that came.
        """
        said, asked = affirmed_in(answer), asked_in(question.text)
        is_standing = question.expect is not None and said.casefold().startswith(question.expect.casefold())
        if not said or (question.aside and not is_standing):
            return
        is_affirmed = said.casefold().startswith((question.expect or "yes").casefold())
        times_ns = [at_ns for at_ns in read_clocks_ns(said) if at_ns <= now_ns]
        span: tuple[int, int] | None
        if times_ns:
            is_affirmed, span = True, (min(times_ns), max(times_ns))
        elif span := self.read_span(question.text, now_ns):
            pass
        elif is_never_past(asked) and (is_standing or (is_about_now(asked) and not names_a_side(asked))):
            span = seen_ns, now_ns
        else:
            is_affirmed, span = False, (0, now_ns)
        self.note(f"{asked} {said}" if is_affirmed else said, *span)

    # ---- out ---------------------------------------------------------------------------------------

    def read_span(self, text: str, now_ns: int) -> tuple[int, int] | None:
        """From when to when in the stream, in ns, a question asks; None if it names no time and nothing known.

        Times go before names (`inf_stream.engine.moments.read_span`). What is named may be at any of its mentions,
        and `AROUND_S` around each: "after" begins with the first of them, "before" ends with the last, and "when" is
        all from the first to the last.
        """
        if names_time(text, now_ns):
            return read_span(text, now_ns)
        reach_ns, begins_ns, ends_ns = nanoseconds(AROUND_S), list[int](), list[int]()
        for event in read_events(text):
            mentions = self._mentions(event.words)
            if mentions and event.begins:
                begins_ns.append(min(first_ns for first_ns, _ in mentions) - reach_ns)
            if mentions and event.ends:
                ends_ns.append(max(last_ns for _, last_ns in mentions) + reach_ns)
        from_ns, to_ns = max(begins_ns, default=0), min(ends_ns, default=now_ns)
        is_known = bool(begins_ns or ends_ns) and from_ns <= to_ns
        return (max(from_ns, 0), min(to_ns, now_ns)) if is_known else None

    def _mentions(self, words: frozenset[str]) -> list[tuple[int, int]]:
        sought, padded = [f" {word} " for word in words], ((f" {known} ", span) for known, span in self._spans.items())
        return [span for known, span in padded if all(word in known for word in sought)]

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """All that is known, the longest unmentioned first."""
        return State(facts={"known": [[words, *span] for words, span in self._spans.items()]})

    def restore(self, state: State) -> None:
        """Know what `state` of another memory gave.

        Raises:
            StateError: it is not what `state` gives, or more than is known at once.
        """
        saved = state.fact("known", list)
        if len(saved) > self._most_texts:
            raise StateError(f"the saved session has {len(saved)} named moments; this one keeps {self._most_texts}")
        for one in saved:
            if not isinstance(one, list) or [type(part) for part in one] != [str, int, int]:
                raise StateError("the saved session has something else than words and two times in 'known'")
            words, first_ns, last_ns = one
            if not 0 < len(words) <= MOST_CHARACTERS or not 0 <= first_ns <= last_ns:
                raise StateError(
                    f"the saved session has a moment of {len(words)} characters from {first_ns} to {last_ns} ns; it "
                    "cannot be used"
                )
            self._spans[words] = first_ns, last_ns
