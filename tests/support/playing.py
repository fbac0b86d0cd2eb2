"""Short ways to open a source and to look at all that it gives."""

from collections.abc import Iterable

from support.media import number_of

from inf_stream.base.config import SourceSettings
from inf_stream.base.events import Frame, FrameArrived, InputEvent, SourceNotice, TextArrived
from inf_stream.sources import FrameSize, open_source


class Seen:
    """Everything a source gave."""

    def __init__(self, events: Iterable[InputEvent]):
        self.events = list(events)

    @property
    def frames(self) -> list[Frame]:
        return [e.frame for e in self.events if isinstance(e, FrameArrived)]

    @property
    def notices(self) -> list[str]:
        return [e.message for e in self.events if isinstance(e, SourceNotice)]

    @property
    def texts(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, TextArrived)]

    @property
    def times_ms(self) -> list[float]:
        return [frame.at_ns / 1e6 for frame in self.frames]

    @property
    def numbers(self) -> list[int]:
        """The numbers in the pictures (`support.media.picture`)."""
        return [number_of(frame.pixels) for frame in self.frames]


def play(address: object, fps: float = 1.0, frame_size: FrameSize | None = None) -> Seen:
    """Open a source, read it to its end and close it."""
    with open_source(str(address), SourceSettings(fps=fps, connect_timeout_s=5.0), frame_size) as source:
        return Seen(source)
