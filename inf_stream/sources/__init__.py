"""Where streams come from: files, folders of images, cameras, addresses, text, recordings."""

from inf_stream.sources.base import MAX_PIXELS, FrameSize, Source, SourceEvent
from inf_stream.sources.door import open_source
from inf_stream.sources.looped import LoopedSource
from inf_stream.sources.recorder import Recorder
from inf_stream.sources.recording import Recording
from inf_stream.sources.resumed import NoSource, ResumedSource
from inf_stream.sources.text import open_text

__all__ = [
    "MAX_PIXELS",
    "FrameSize",
    "LoopedSource",
    "NoSource",
    "Recorder",
    "Recording",
    "ResumedSource",
    "Source",
    "SourceEvent",
    "open_source",
    "open_text",
]
