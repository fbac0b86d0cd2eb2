"""What an operator can measure, as Prometheus reads it. The labels' values are few, whatever clients do."""

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inf_stream.base.events import AnswerFinished
from inf_stream.server.connections.session_keeper import OUTCOMES
from inf_stream.server.connections.state_folder import StateFolder
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import FrameSettled, SessionEvent

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STEP_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FIRST_TOKEN_S = (0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TOKENS_PER_S = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_WORK = frozenset({"encode", "chunk", "decode"})
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1006, 1007, 1008, 1009, 1011, 1013})


class Metrics:
    """Counts of one server, in a registry of their own. Thread-safe; what ends takes nothing back."""

    def __init__(self) -> None:
        # Without it each counter has a second series that says only when the server began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._model_seconds = Histogram(
            "inf_stream_model_seconds",
            "Passes of the model: encode frames, read a chunk of tokens, decode a token of one answer or several",
            ["work"],
            buckets=_STEP_S,
            registry=registry,
        )
        self._step_seconds = Histogram(
            "inf_stream_step_seconds", "Steps of sessions by kind; one made together with others counts for each",
            ["step"], buckets=_STEP_S, registry=registry,
        )  # fmt: skip
        self._frames = Counter(
            "inf_stream_frames", "Frames by what became of them", ["outcome", "reason"], registry=registry
        )
        self._answers = Counter("inf_stream_answers", "Answers by how they ended", ["reason"], registry=registry)
        self._tokens = Counter("inf_stream_answer_tokens", "Tokens of all answers", registry=registry)
        self._tokens_per_second = Histogram(
            "inf_stream_answer_tokens_per_second",
            "Tokens a second of an answer, after its first one",
            buckets=_TOKENS_PER_S,
            registry=registry,
        )
        self._first_token_seconds = Histogram(
            "inf_stream_first_token_seconds",
            "Time from a question to its first token",
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self._refused = Counter(
            "inf_stream_requests_refused", "Requests refused, by HTTP status", ["status"], registry=registry
        )
        self._closed = Counter(
            "inf_stream_connections_closed", "WebSocket connections by close code", ["code"], registry=registry
        )
        self._saves = Counter(
            "inf_stream_saves", "Saved sessions by what became of them: saved, failed, expired, refused", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in OUTCOMES:
            self._saves.labels(outcome)
        ProcessCollector(registry=registry)

    def watch(self, hub: Hub, connections: Callable[[], int], folder: StateFolder | None = None) -> None:
        """Read at each scrape what a hub and a state folder say of themselves, and how many connections are open."""
        self._registry.register(_Readings(hub, connections, folder))

    def timed(self, what: str, seconds: float) -> None:
        """The model's work, or a turn of the engine's thread, took so long."""
        if what in _WORK:
            self._model_seconds.labels(what).observe(seconds)
        else:
            self._step_seconds.labels(what).observe(seconds)

    def refused(self, status: int) -> None:
        """A request was refused."""
        self._refused.labels(str(status)).inc()

    def closed(self, code: int) -> None:
        """A WebSocket connection has ended; codes of the client's own count as one."""
        self._closed.labels(str(code) if code in _CLOSE_CODES else "other").inc()

    def kept(self, outcome: str) -> None:
        """A session was saved, could not be, has expired, or was refused to a client that came back."""
        self._saves.labels(outcome).inc()

    def heard(self, event: SessionEvent) -> None:
        """Something came out of a session."""
        match event:
            case FrameSettled(_, _, outcome, reason):
                self._frames.labels(outcome, reason or "").inc()
            case AnswerFinished():
                self._answered(event)

    def text(self) -> bytes:
        """All of it, as `/metrics` shows it."""
        return generate_latest(self._registry)

    def _answered(self, answer: AnswerFinished) -> None:
        self._answers.labels(answer.reason.value).inc()
        self._tokens.inc(answer.tokens)
        if answer.ttft_s is not None:
            self._first_token_seconds.observe(answer.ttft_s)
        if answer.tokens_per_s is not None:
            self._tokens_per_second.observe(answer.tokens_per_s)


class _Readings(Collector):
    """What is read at each scrape rather than counted."""

    def __init__(self, hub: Hub, connections: Callable[[], int], folder: StateFolder | None):
        self._hub, self._connections, self._folder = hub, connections, folder

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        hub, sessions = self._hub, self._hub.sessions
        uses = [session.use for session in sessions]
        for name, what, value in (
            ("sessions", "Open sessions", hub.admission.sessions),
            ("sessions_most", "Sessions that fit", hub.admission.most_sessions),
            ("connections", "Open connections, plain requests included", self._connections()),
            ("frames_waiting", "Frames that wait for the engine", sum(s.frames_waiting for s in sessions)),
            ("questions_waiting", "Questions not answered yet", sum(s.questions_waiting for s in sessions)),
            ("steps_waiting", "Engine steps that wait for their turn", hub.worker.waiting),
            ("cache_tokens", "Tokens kept per layer by all open sessions", sum(use.tokens for use in uses if use)),
            ("cache_bytes", "Memory of the caches of open sessions", sum(use.cache_bytes for use in uses if use)),
            (
                "cache_promised_bytes",
                "Memory promised to open sessions, archives included",
                hub.admission.sessions * hub.maker.session_bytes,
            ),
            ("archive_bytes", "Archives of open sessions, on disk or not", sum(u.archive_bytes for u in uses if u)),
        ):
            yield GaugeMetricFamily(f"inf_stream_{name}", what, value=value)
        yield CounterMetricFamily("inf_stream_sessions_opened", "Sessions so far", value=hub.opened)
        refused = CounterMetricFamily("inf_stream_sessions_refused", "Sessions refused, by why", labels=["reason"])
        for reason, count in hub.refused.items():
            refused.add_metric([reason], count)
        yield refused
        if self._folder is not None:
            yield GaugeMetricFamily("inf_stream_saved_sessions", "Sessions on disk", value=self._folder.sessions)
            yield GaugeMetricFamily("inf_stream_saved_bytes", "Their size on disk", value=self._folder.size_bytes)
        gpu = hub.maker.gpu()
        if gpu is not None:
            memory = GaugeMetricFamily("inf_stream_gpu_memory_bytes", "Memory of the model's GPU", labels=["state"])
            memory.add_metric(["used"], gpu.total_bytes - gpu.free_bytes)
            memory.add_metric(["free"], gpu.free_bytes)
            yield memory
