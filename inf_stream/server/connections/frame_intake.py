"""The frames of one message on their way into a session: judged, decoded, queued, or refused together."""

from collections.abc import Callable, Sequence

from inf_stream.base.errors import InfStreamError
from inf_stream.server.protocols.adapter import Adapter, Reply, TakeFrames
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.sessions.live_session import DROPPED, ERROR, TOO_FAST, LiveSession


class FrameIntake:
    """Takes the frames of one session.

    Args:
        session: that they are for.
        decoder: of images.
        sees: whether the model takes any.
        say: takes what the client is told.
    """

    def __init__(
        self,
        session: LiveSession,
        decoder: PictureDecoder,
        *,
        sees: bool,
        say: Callable[[Sequence[Reply]], None],
    ):
        self._session, self._decoder, self._sees, self._say = session, decoder, sees, say

    async def take(self, frames: TakeFrames, adapter: Adapter) -> None:
        """Number them, and give each its outcome or a place in the session's queue."""
        session = self._session
        numbers = [session.number_frame() for _ in frames.images]
        try:
            if not self._sees:
                raise MessageError("the model reads text only; it takes no frames", code="unsupported_content")
            wanted = [not session.comes_too_fast() for _ in numbers]
            times_ns = [session.stamp(stamp) for stamp in frames.timestamps_ms]
            taken = [image for image, take in zip(frames.images, wanted, strict=True) if take]
            files = iter(await self._decoder.files(taken))
            pictures = [await self._decoder.decoded(next(files)) if take else None for take in wanted]
        except InfStreamError as refused:
            error = refused if isinstance(refused, MessageError) else MessageError(str(refused), param="timestamp_ms")
            for number in numbers:
                session.settle(number, session.now_ns(), ERROR, error.code)
            self._say(adapter.frames_refused(frames.tag, error))
            return
        for number, picture, at_ns in zip(numbers, pictures, times_ns, strict=True):
            if picture is None:
                session.settle(number, at_ns, DROPPED, TOO_FAST)
            else:
                await session.frame(number, picture, at_ns)
        self._say(adapter.frames_taken(frames.tag, numbers))
