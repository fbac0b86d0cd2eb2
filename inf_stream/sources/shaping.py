"""Decoded frames become RGB arrays of the size the model asks for, by one swscale call each."""

from fractions import Fraction

import av
from av.video.reformatter import VideoReformatter

from inf_stream.base.events import Pixels
from inf_stream.sources.base import FrameSize
from inf_stream.sources.orientation import Orientation

_HD_ROWS = 720
_UNSPECIFIED_COLOURSPACE = 2
_WIDEST_PIXEL = 8


class Shaper:
    """Converts and resizes frames; keeps swscale's tables from frame to frame."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def shape(
        self, frame: av.VideoFrame, frame_size: FrameSize | None, orientation: Orientation, pixel_aspect: Fraction
    ) -> Pixels:
        """The frame upright, with square pixels, in RGB.

        Args:
            frame: as decoded.
            frame_size: asked with the size as shown; None keeps that size.
            orientation: how the frame is to be turned.
            pixel_aspect: width of a stored pixel / its height.
        """
        shown = orientation.size(max(1, round(frame.width * pixel_aspect)), frame.height)
        wanted = shown if frame_size is None else frame_size(*shown)
        width, height = orientation.size(*wanted)
        scaled = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            src_colorspace=_colourspace(frame),
            src_color_range=frame.color_range,
            interpolation="BICUBIC",
        )
        return orientation.apply(scaled.to_ndarray())


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width / height of the stream's pixels; 1 where it is not given or absurd."""
    ratio = stream.codec_context.sample_aspect_ratio
    if not ratio or not Fraction(1, _WIDEST_PIXEL) <= ratio <= _WIDEST_PIXEL:
        return Fraction(1)
    return Fraction(ratio)


def _colourspace(frame: av.VideoFrame) -> int | None:
    """BT.709 for unlabelled video of HD size, as players assume; else what the frame says."""
    unlabelled = frame.colorspace == _UNSPECIFIED_COLOURSPACE and frame.format.name.startswith("yuv4")
    return 1 if unlabelled and frame.height >= _HD_ROWS else None
