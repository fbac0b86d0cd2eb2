"""A stream whose very first frame the engine refuses is refused as a whole."""

from collections.abc import Sequence

from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import Frame
from inf_stream.engine.forwarding import ForwardingEngine
from inf_stream.engine.protocol import SteppedEngine


class StreamRefused(Exception):  # noqa: N818 (not for callers of the package: `reason` is what they get)
    """Ends the session at once; `reason` says why."""

    def __init__(self, reason: InfStreamError):
        super().__init__(str(reason))
        self.reason = reason


class FirstFrameGuard(ForwardingEngine):
    """An engine that breaks, rather than refusing frame after frame, as long as none has been taken in.

    Raises:
        StreamRefused: from `ingest_frames`.
    """

    def __init__(self, engine: SteppedEngine):
        super().__init__(engine)
        self._seen = False

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's, but a refusal before the first success is final."""
        try:
            super().ingest_frames(frames)
        except InfStreamError as error:
            if self._seen:
                raise
            raise StreamRefused(error) from error
        self._seen = True
