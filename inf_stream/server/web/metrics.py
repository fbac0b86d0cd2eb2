"""What an operator can measure, as Prometheus reads it."""

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inf_stream.base.events import AnswerFinished
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import FrameSettled, SessionEvent

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STEP_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FIRST_TOKEN_S = (0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, in a registry of their own. Thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.step_seconds = Histogram(
            "inf_stream_step_seconds", "Engine steps by kind", ["step"], buckets=_STEP_S, registry=registry
        )
        self.frames = Counter(
            "inf_stream_frames", "Frames by what became of them", ["outcome", "reason"], registry=registry
        )
        self.answers = Counter("inf_stream_answers", "Answers by how they ended", ["reason"], registry=registry)
        self.tokens = Counter("inf_stream_answer_tokens", "Tokens of all answers", registry=registry)
        self.first_token_seconds = Histogram(
            "inf_stream_first_token_seconds",
            "Time from a question to its first token",
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self.refused = Counter("inf_stream_refused", "Requests refused, by status or close code", ["code"],
                               registry=registry)  # fmt: skip

    def watch(self, hub: Hub) -> None:
        """Read what a hub says of itself at each scrape."""
        for name, what, read in (
            ("inf_stream_sessions", "Open sessions", lambda: hub.admission.sessions),
            ("inf_stream_sessions_most", "Sessions that fit", lambda: hub.admission.most_sessions),
            (
                "inf_stream_frames_waiting",
                "Frames that wait for the engine",
                lambda: sum(session.frames_waiting for session in hub.sessions),
            ),
            ("inf_stream_steps_waiting", "Engine steps that wait for their turn", lambda: hub.worker.waiting),
            (
                "inf_stream_cache_bytes",
                "Memory promised to the caches of open sessions",
                lambda: hub.admission.sessions * hub.maker.session_bytes,
            ),
            ("inf_stream_gpu_bytes", "GPU memory that torch holds", _gpu_bytes),
        ):
            Gauge(name, what, registry=self._registry).set_function(read)

    def timed(self, step: str, seconds: float) -> None:
        """An engine's step took so long."""
        self.step_seconds.labels(step).observe(seconds)

    def heard(self, event: SessionEvent) -> None:
        """Something came out of a session."""
        match event:
            case FrameSettled(_, _, outcome, reason):
                self.frames.labels(outcome, reason or "").inc()
            case AnswerFinished():
                self.answers.labels(event.reason.value).inc()
                self.tokens.inc(event.tokens)
                if event.ttft_s is not None:
                    self.first_token_seconds.observe(event.ttft_s)

    def text(self) -> bytes:
        """All of it, as `/metrics` shows it."""
        return generate_latest(self._registry)


def _gpu_bytes() -> float:
    return float(torch.cuda.memory_allocated()) if torch.cuda.is_available() else 0.0
