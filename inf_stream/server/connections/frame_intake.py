"""The frames of one message on their way into a session: judged, decoded, queued, or refused together."""

import asyncio
from collections.abc import Callable, Sequence

from inf_stream.base.errors import InfStreamError
from inf_stream.server.protocols.adapter import Adapter, Reply, TakeFrames
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.pictures import PictureDecoder, PictureError, count_pixels
from inf_stream.server.sessions.live_session import DROPPED, ERROR, TOO_FAST, LiveSession


class FrameIntake:
    """Takes the frames of one session.

    Args:
        session: that they are for.
        decoder: of images.
        most_pixels: of all images of one message.
        sees: whether the model takes any.
        say: takes what the client is told.
    """

    def __init__(
        self,
        session: LiveSession,
        decoder: PictureDecoder,
        *,
        most_pixels: int,
        sees: bool,
        say: Callable[[Sequence[Reply]], None],
    ):
        self._session, self._decoder, self._say = session, decoder, say
        self._most_pixels, self._sees = most_pixels, sees

    async def take(self, frames: TakeFrames, adapter: Adapter) -> None:
        """Number them, and give each its outcome or a place in the session's queue."""
        session = self._session
        numbers = [session.number_frame() for _ in frames.images]
        try:
            if not self._sees:
                raise MessageError("the model reads text only; it takes no frames", code="unsupported_content")
            wanted = [not session.comes_too_fast() for _ in numbers]
            self._check_pixels([data for data, take in zip(frames.images, wanted, strict=True) if take])
            times_ns = [session.stamp(stamp) for stamp in frames.timestamps_ms]
            run = asyncio.get_running_loop().run_in_executor
            pictures = [
                await run(self._decoder.pool, self._decoder.decode, data) if take else None
                for data, take in zip(frames.images, wanted, strict=True)
            ]
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

    def _check_pixels(self, images: Sequence[bytes]) -> None:
        most = self._most_pixels
        if sum(count_pixels(data, most) for data in images) > most:
            raise PictureError(f"the images of one message have more than {most} pixels; send them one by one",
                               code="image_too_large")  # fmt: skip
