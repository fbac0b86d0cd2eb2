"""A long clip from a short one: its frames at 1 fps over and over, with the running time burned in.

python demos/bench/clock_clip.py short.mp4 hour.mp4 --seconds 3600
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from rich.progress import track

from inf_stream.base.clock import NS_PER_S, format_clock


def looped_frames(clip: Path) -> Iterator[np.ndarray]:
    """One picture per second of the clip, for ever."""
    while True:
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            wanted = 0.0
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= wanted:
                    wanted += 1.0
                    yield frame.to_ndarray(format="rgb24", width=320, height=180)


def burn_in(picture: np.ndarray, second: int) -> np.ndarray:
    """The picture with a clock in its upper left corner."""
    picture = np.ascontiguousarray(picture)
    cv2.rectangle(picture, (0, 0), (130, 34), (0, 0, 0), cv2.FILLED)
    cv2.putText(picture, format_clock(second * NS_PER_S), (6, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return picture


def make(clip: Path, out: Path, seconds: int) -> None:
    """Write `out`, H.264, one frame a second."""
    frames = looped_frames(clip)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "veryfast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for second in track(range(seconds), description=f"making {out.name}"):
            frame = av.VideoFrame.from_ndarray(burn_in(next(frames), second), format="rgb24")
            frame.pts, frame.time_base = second, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=int, default=3600)
    args = parser.parse_args()
    make(args.clip, args.out, args.seconds)


if __name__ == "__main__":
    main()
