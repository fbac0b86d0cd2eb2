"""PyAV containers: opened with clear errors, decoded as far as the data allows."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import av
from av.container import InputContainer
from av.stream import Stream

from inf_stream.base.clock import NS_PER_S
from inf_stream.base.errors import SourceError
from inf_stream.sources.base import MAX_PIXELS

_US_PER_S = 1_000_000
_MOST_FAILED_READS = 16
_FALLBACK_FPS = 25
_PLAYLISTS = ("hls", "dash")
_TEXT_ART = frozenset({"ansi", "bintext", "xbin", "idf"})
"""Decoders with which FFmpeg draws plain text files as pictures of a terminal."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of the stream that could not be read or decoded. `is_final`: no later one can be read either."""

    reason: str
    is_final: bool = False


if TYPE_CHECKING:
    VideoPacket: TypeAlias = av.Packet[av.VideoStream]
else:
    VideoPacket = av.Packet  # generic for type checkers only
ReadPackets: TypeAlias = Callable[[], Iterator[VideoPacket]]
DecodePacket: TypeAlias = Callable[[VideoPacket | None], list[av.VideoFrame]]
Decoded: TypeAlias = av.VideoFrame | Damage


def open_container(
    url: str, name: str, *, read_timeout_s: float | None = None, options: dict[str, str] | None = None
) -> InputContainer:
    """Open a file or address for reading.

    Args:
        url: as FFmpeg takes it.
        name: for messages; no passwords in it.
        read_timeout_s: longest wait for each read, and half of the longest wait for opening; None waits for ever.
        options: of the demuxer and protocol.

    Raises:
        SourceError: it cannot be opened, holds no video, or its pictures are too large.
    """
    timeouts = None if read_timeout_s is None else (2 * read_timeout_s, read_timeout_s)
    try:
        container = av.open(url, "r", options=options, timeout=timeouts, metadata_errors="replace")
    except av.FFmpegError as error:
        raise SourceError(f"'{name}' cannot be opened: {reason(error)}") from error
    try:
        _check_video(container, name)
    except SourceError:
        container.close()
        raise
    return container


def video_stream(container: InputContainer) -> av.VideoStream | None:
    """The first video stream that is not a cover picture of a sound file."""
    return next((s for s in container.streams.video if not _is_cover(s)), None)


def duration_ns(container: InputContainer) -> int | None:
    """Length of the video where the container knows it."""
    stream = video_stream(container)
    if stream is not None and stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * NS_PER_S)
    if container.duration and container.duration > 0:
        return container.duration * (NS_PER_S // _US_PER_S)
    return None


def is_endless(container: InputContainer) -> bool:
    """Whether a network stream has no known end: neither a duration nor a size, or a playlist that keeps growing."""
    if duration_ns(container) is not None:
        return False
    return container.format.name.startswith(_PLAYLISTS) or not (container.size or 0) > 0


def nominal_interval_ns(stream: av.VideoStream) -> int:
    """Time from frame to frame as the container estimates it."""
    rate = stream.guessed_rate or stream.average_rate or _FALLBACK_FPS
    return round(NS_PER_S / rate)


def decode(container: InputContainer, stream: av.VideoStream) -> Iterator[Decoded]:
    """All frames that can be decoded, in order, and where something could not.

    Data that makes no sense is skipped; an error of the file or connection itself ends the stream.
    """
    return decode_with(lambda: container.demux(stream), stream.codec_context.decode)


def decode_with(read: ReadPackets, decode_packet: DecodePacket) -> Iterator[Decoded]:
    """`decode`, given how packets are read (and read on after an error) and turned into frames."""
    packets = read()
    failed_reads = 0
    while failed_reads < _MOST_FAILED_READS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.InvalidDataError as error:
            failed_reads += 1
            packets = read()
            yield Damage(reason(error))
            continue
        except av.FFmpegError as error:
            yield Damage(reason(error), is_final=True)
            break
        failed_reads = 0
        if packet.is_corrupt:
            yield Damage("the container marks data as damaged")
        yield from _frames(decode_packet, packet)
    yield from _frames(decode_packet, None)


def reason(error: av.FFmpegError) -> str:
    """What went wrong, without FFmpeg's file names (they may hold passwords)."""
    if isinstance(error, av.InvalidDataError):
        return "the data is damaged, cut short, or of an unknown kind"
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return "no answer in time"
    if error.errno == errno.EIO:
        return "input/output error: no such host, or the connection or disk broke"
    return (error.strerror or type(error).__name__).lower()


def _frames(decode_packet: DecodePacket, packet: VideoPacket | None) -> Iterator[Decoded]:
    try:
        frames = decode_packet(packet)
    except av.FFmpegError as error:
        yield Damage(reason(error))
        return
    for frame in frames:
        if frame.is_corrupt:
            yield Damage("a picture was decoded from damaged data")
        yield frame


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check_video(container: InputContainer, name: str) -> None:
    stream = video_stream(container)
    if stream is None:
        kinds = sorted({"a cover picture" if _is_cover(s) else s.type for s in container.streams})
        raise SourceError(f"'{name}' holds no video, only {', '.join(kinds) or 'nothing'}; give a file with pictures")
    if stream.codec_context is None:
        raise SourceError(f"'{name}' is of a video format that this build of FFmpeg cannot decode; convert it to H.264")
    if stream.codec_context.codec.name in _TEXT_ART:
        raise SourceError(
            f"'{name}' is text, not video; to ask about a text: cat FILE | inf-stream chat --then QUESTION"
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"'{name}' has pictures of {width} x {height} pixels; at most {MAX_PIXELS} pixels are taken: scale it down"
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    # Threads may race where data is damaged: one broken file gave other pixels in 1 of 190 runs with frames decoded
    # side by side and in 1 of 60 with slices. One thread took 1.46 s for a clip that took two cores 1.29 s.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
