"""Watches a network camera (or one here, or a file) by `inf-stream serve`, and prints an alert when it sees something.

    inf-stream serve                                                            # in another terminal
    python demos/clients/rtsp_watcher.py --source rtsp://camera.local/door --watch "Is there a dog?" --save alerts/

    2026-03-01T14:02:11+01:00  stream 12:30  Is there a dog?  Yes.  because of 12:29 (61%), 12:27 (20%)  alerts/...jpg

The questions stand on the server, which asks them by itself as pictures come. A lost camera and a lost server are tried
again for ever, with growing pauses; the session, its memory and the alerts that were missed are taken up again if the
server still has them (`server.grace_s`), and begin anew otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from link import ClientError, StreamConnection, StreamLink, guarded, make_parser, note, positive, show_status
from pictures import Player

from inf_stream.base.clock import format_clock, nanoseconds

LOOK_S = 0.2
"""At the end of the source: between looks at whether everything is answered."""
REMEMBERED = 120
"""Pictures that may still turn out to be those of an alert."""


@dataclass(frozen=True)
class Shown:
    """A picture that was sent: its file, its stream time, and when it came by `time.monotonic`."""

    jpeg: bytes
    at_s: float
    captured_s: float


class Album:
    """The pictures of the latest alerts, so many at most, in a folder; the oldest of its own make room.

    Raises:
        ClientError: the folder cannot be made.
    """

    def __init__(self, folder: Path, most: int):
        self._folder, self._most = folder, most
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClientError(f"--save {folder}: {error.strerror or error}") from error

    def keep(self, jpeg: bytes, taken: datetime, watch_id: str) -> Path | None:
        """Write one; None, and a line about it, if that cannot be done."""
        path = self._folder / f"alert-{taken:%Y%m%d-%H%M%S-%f}-{watch_id}.jpg"
        try:
            path.write_bytes(jpeg)
            for old in sorted(self._folder.glob("alert-*.jpg"))[: -self._most]:
                old.unlink(missing_ok=True)
        except OSError as error:
            note(f"the picture of an alert cannot be kept: {error}")
            return None
        return path


class Watcher:
    """Standing questions about a source.

    Args:
        player: of the source.
        args: of the command line.
    """

    def __init__(self, player: Player, args: argparse.Namespace):
        self._player, self._args = player, args
        self._watches = {f"w{number}": question for number, question in enumerate(args.watch, 1)}
        self._album = None if args.save is None else Album(args.save, args.keep)
        self._sent: deque[Shown] = deque(maxlen=REMEMBERED)
        self._has_ended = False
        self._counts = {"accepted": 0, "dropped": 0, "error": 0}

    async def watch(self) -> None:
        """Until the source has ended and its last pictures were looked at."""
        link = StreamLink(self._args.url, self._args.key)
        async with contextlib.aclosing(link.connections()) as connections:
            async for connection in connections:
                tasks = [asyncio.create_task(work(connection)) for work in (self._send, self._listen)]
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if any(task.result() for task in done):
                        return
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, connection: StreamConnection) -> bool:
        """Pictures as long as there are any, and then questions about how far the server is; until cancelled."""
        if connection.is_new:
            for watch_id, question in self._watches.items():
                await connection.say(
                    "watch", id=watch_id, question=question, expect=self._args.expect,
                    every_s=self._args.every, cooldown_s=self._args.cooldown,
                )  # fmt: skip
        while (picture := await self._player.next()) is not None:
            self._sent.append(Shown(picture.jpeg(), picture.at_s, picture.captured_s))
            await connection.frame(self._sent[-1].jpeg, picture.at_s)
        self._has_ended = True
        while True:
            await connection.say("stats")
            await asyncio.sleep(LOOK_S)

    async def _listen(self, connection: StreamConnection) -> bool:
        """Whether everything is done; otherwise the connection is lost."""
        async for message in connection:
            match message["type"]:
                case "alert":
                    self._alert(message)
                case "frame":
                    self._counts[message["outcome"]] += 1
                    show_status(self._status(message["at_s"]))
                case "stats" if self._has_ended:
                    if not message["questions_waiting"] and not message["frames"]["waiting"]:
                        return True
                case "error":
                    raise ClientError(message["message"])
        return False

    def _status(self, at_s: float) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self._counts.items() if count)
        return f"{_clock(at_s)}  pictures: {counts}"

    def _alert(self, alert: dict[str, Any]) -> None:
        watch_id, at_s = alert["metadata"]["trigger"], float(alert["metadata"]["stream_time_s"])
        # The server may date a picture some milliseconds later than it was sent for: stream times never fall.
        shown = min(self._sent, key=lambda one: abs(one.at_s - at_s))
        taken = datetime.fromtimestamp(time.time() - (time.monotonic() - shown.captured_s)).astimezone()
        kept = None if self._album is None else self._album.keep(shown.jpeg, taken, watch_id)
        told = {
            "at": taken.isoformat(timespec="seconds"),
            "stream_s": at_s,
            "watch": self._watches[watch_id],
            "answer": alert["text"],
            "evidence": alert["evidence"],
            "picture": None if kept is None else str(kept),
        }
        show_status("")
        print(json.dumps(told) if self._args.json else _line(told), flush=True)


def _line(told: dict[str, Any]) -> str:
    evidence = ", ".join(f"{_clock(one['at_s'])} ({one['share']:.0%})" for one in told["evidence"][:3])
    parts = [told["at"], f"stream {_clock(told['stream_s'])}", told["watch"], told["answer"]]
    parts += [f"because of {evidence}"] if evidence else []
    return "  ".join(parts + ([told["picture"]] if told["picture"] else []))


def _clock(at_s: float) -> str:
    return format_clock(nanoseconds(at_s))


def program(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--watch", action="append", required=True, metavar="QUESTION", help="what to look for; may be repeated"
    )
    parser.add_argument("--expect", default="yes", help="how an answer begins that is worth an alert (default: yes)")
    parser.add_argument("--every", type=positive, default=2.0, metavar="S", help="seconds of the stream between two "
                        "looks of one watch (default: %(default)g)")  # fmt: skip
    parser.add_argument("--cooldown", type=positive, default=30.0, metavar="S", help="least seconds of the stream "
                        "between two alerts of one watch (default: %(default)g)")  # fmt: skip
    parser.add_argument("--fps", type=positive, default=1.0, help="pictures a second (default: %(default)g)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the picture of each alert there")
    parser.add_argument("--keep", type=int, default=100, metavar="N", help="the latest so many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object an alert")
    args = parser.parse_args(argv)
    if args.keep < 1:
        parser.error(f"--keep is {args.keep}; the least is 1")
    with Player(args.source, args.fps) as player:
        note(f"watching {player.describe()} by {args.url}")
        asyncio.run(Watcher(player, args).watch())


if __name__ == "__main__":
    sys.exit(guarded(program))
