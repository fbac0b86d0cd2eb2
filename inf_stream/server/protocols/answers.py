"""What every protocol says of an answer: what it rests on, what it was given, and why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from inf_stream.base.clock import seconds
from inf_stream.base.events import AnswerFinished, Evidence

REFUSED = "too many questions wait; ask again when one is answered"
BROKEN = "the engine failed; the server's log says more"


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of an answer; zero where the engine did not get so far.

    Attributes:
        read: that were in the cache when it began, its question included.
        cached: of these, before the question came.
        images: of these, of frames.
        written: of the answer itself.
    """

    read: int
    cached: int
    images: int
    written: int

    @classmethod
    def of(cls, answer: AnswerFinished) -> "TokenCounts":
        """Those of an answer that has ended."""
        read, cached, images = (int(answer.stats.get(f"{name}_tokens", 0)) for name in ("input", "cached", "image"))
        return cls(read, cached, images, answer.tokens)


def evidence_objects(evidence: Sequence[Evidence]) -> list[dict[str, float]]:
    """The frames that weighed most, by their stream times in seconds, the heaviest first."""
    return [{"at_s": round(seconds(e.at_ns), 3), "share": round(e.share, 4)} for e in evidence]


def said_earlier(text: str) -> str:
    """How the model is told what it said, by a client that knows better what was said."""
    return f"(You said earlier: {text})"
