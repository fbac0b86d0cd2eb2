"""A robot's control loop: twice a second a command, from what a model says about the newest picture of a camera.

    inf-stream serve                                                        # in another terminal
    python demos/clients/robot_client.py --source camera:0 --thing "a person"

It prints one JSON line a tick, which a real robot would hand to its motors:

    {"tick": 7, "at_s": 3.5, "command": "left", "why": "seen",
     "observation": {"obstacle": true, "direction": "right"}, "age_s": 0.6, "asked": 4, "skipped": 3, "late": 1, ...}

The loop never waits for the server. A round of questions is asked about the newest picture, as asides, so that they
leave no trace in the memory; while it is open, ticks pass without a new one (`skipped`); an answer that comes after the
next tick is `late`, and counts as long as its picture is fresh. A round whose picture is older than `--watchdog` is
cancelled. Without a fresh answer the command is "stop". Answers are taken as they are said or not at all
(`unreadable`): no value is ever made up.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from link import ClientError, StreamConnection, StreamLink, guarded, make_parser, note, positive
from pictures import Picture, Player
from robot_rounds import Form, JsonForm, Look, Observation, WordsForm, command_for

COUNTS = ("asked", "skipped", "late", "cancelled", "unreadable", "lost")
MOST_UNREADABLE = 3
"""Answers in a row after which a model is not asked for JSON any more."""


@dataclass
class Round:
    """The questions about one picture.

    Attributes:
        number: of the round, with which the ids of its questions begin.
        picture: what they are about.
        form: which they are.
        due_s: when the next tick is; an answer after that is late.
        open: asked and not answered, by their ids.
        answers: so far, by the names of the looks.
        is_spoiled: whatever is answered, it is not about this picture.
    """

    number: int
    picture: Picture
    form: Form
    due_s: float
    open: dict[str, Look] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    is_spoiled: bool = False

    def put(self, looks: Sequence[Look]) -> None:
        """These are asked now."""
        self.open = {f"{self.number}.{look.name}": look for look in looks}


class Robot:
    """The loop and its conversation.

    Args:
        player: of the camera.
        args: of the command line.
    """

    def __init__(self, player: Player, args: argparse.Namespace):
        self._player, self._args = player, args
        self._form: Form = WordsForm(args.thing) if args.form == "words" else JsonForm(args.thing)
        self._connection: StreamConnection | None = None
        self._round: Round | None = None
        self._stale: Sequence[str] = ()
        self._sending: asyncio.Task[None] | None = None
        self._seen: tuple[Observation, Picture] | None = None
        self._counts = Counter(dict.fromkeys(COUNTS, 0))
        self._unreadable_in_a_row = 0

    async def live(self) -> None:
        """Drive until the source has ended or the time is over."""
        talking = asyncio.create_task(self._talk())
        try:
            await self._drive(talking)
        finally:
            tasks = [task for task in (talking, self._sending) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- the loop ----------------------------------------------------------------------------------

    async def _drive(self, talking: "asyncio.Task[None]") -> None:
        began_s, tick, interval_s = time.monotonic(), 0, 1 / self._args.rate
        while not (self._player.has_ended and self._round is None):
            if talking.done():
                return talking.result()
            now_s = time.monotonic()
            if self._args.duration and now_s - began_s >= self._args.duration:
                return None
            self._pursue(now_s, now_s + interval_s)
            print(json.dumps({"tick": tick, "at_s": round(now_s - began_s, 3)} | self._command(now_s)), flush=True)
            # A tick that was missed is not made up for: the next one is the next on the grid.
            tick = max(tick + 1, int((time.monotonic() - began_s) / interval_s) + 1)
            await asyncio.sleep(began_s + tick * interval_s - time.monotonic())
        return None

    def _command(self, now_s: float) -> dict[str, Any]:
        observation, age_s = None, None
        if self._seen is not None:
            observation, picture = self._seen
            age_s = round(now_s - picture.captured_s, 3)
        command, why = "stop", "no fresh answer"
        if observation is not None and age_s is not None and age_s <= self._args.watchdog:
            command, why = command_for(observation), "seen"
        shown = None if observation is None else observation.model_dump()
        return {"command": command, "why": why, "observation": shown, "age_s": age_s, **self._counts}

    def _pursue(self, now_s: float, due_s: float) -> None:
        """Ask about the newest picture, unless a round is open whose answer can still be fresh."""
        if self._round is not None and now_s - self._round.picture.captured_s > self._args.watchdog:
            self._stale, self._round = tuple(self._round.open), None
            self._counts["cancelled"] += 1
        if self._round is not None or (self._sending is not None and not self._sending.done()):
            self._counts["skipped"] += 1
            return
        if self._connection is None:
            return
        picture = self._player.take()
        if picture is not None:
            self._counts["asked"] += 1
            self._round = Round(self._counts["asked"], picture, self._form, due_s)
            self._round.put(self._form.step({}))
        self._sending = asyncio.create_task(self._send(self._connection, self._stale, self._round))
        self._stale = ()

    # ---- the conversation --------------------------------------------------------------------------

    async def _talk(self) -> None:
        link = StreamLink(self._args.url, self._args.key)
        async with contextlib.aclosing(link.connections()) as connections:
            async for connection in connections:
                self._connection = connection
                async for message in connection:
                    self._heard(message)
                self._connection, self._stale = None, ()
                if self._round is not None:
                    self._round = None
                    self._counts["lost"] += 1

    async def _send(self, connection: StreamConnection, stale: Sequence[str], asked: Round | None) -> None:
        for question_id in stale:
            await connection.say("cancel", id=question_id)
        for question_id, look in list(asked.open.items()) if asked is not None else ():
            await connection.frame(asked.picture.jpeg(look.begin, look.end), asked.picture.at_s)
            await connection.say(
                "ask", id=question_id, text=look.question, aside=True, in_order=True, max_tokens=look.max_tokens
            )

    def _heard(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "frame", "outcome": "dropped" | "error"} if self._round is not None:
                self._round.is_spoiled = True
            case {"type": "answer.finished", "id": question_id} if self._round and question_id in self._round.open:
                self._answered(self._round, question_id, message)
            case {"type": "error", "code": "not_active"}:
                pass  # an answer ended just when it was cancelled
            case {"type": "error"}:
                raise ClientError(message["message"])

    def _answered(self, asked: Round, question_id: str, message: dict[str, Any]) -> None:
        asked.answers[asked.open.pop(question_id).name] = message["text"]
        asked.is_spoiled |= message["reason"] not in ("stop", "length")
        if asked.open:
            return
        if asked.is_spoiled:
            self._round = None
            self._counts["lost"] += 1
            return
        step = asked.form.step(asked.answers)
        if isinstance(step, tuple):
            asked.put(step)
            assert self._connection is not None, "an answer came by it"
            self._sending = asyncio.create_task(self._send(self._connection, (), asked))
            return
        self._round = None
        self._counts["late"] += time.monotonic() > asked.due_s
        if step is not None:
            self._seen, self._unreadable_in_a_row = (step, asked.picture), 0
        else:
            self._cannot_read()

    def _cannot_read(self) -> None:
        self._counts["unreadable"] += 1
        self._unreadable_in_a_row += 1
        if self._args.form == "auto" and self._unreadable_in_a_row == MOST_UNREADABLE:
            note(f"no JSON in {MOST_UNREADABLE} answers; asking yes-or-no questions from now on")
            self._form = WordsForm(self._args.thing)


def program(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--thing", default="a person", help="what is in the way (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=2.0, help="ticks a second (default: %(default)g)")
    parser.add_argument(
        "--watchdog", type=positive, default=3.0, metavar="S",
        help="a picture is fresh for so many seconds; without an answer about a fresh one, stop (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--form", choices=("auto", "json", "words"), default="auto",
        help="ask for JSON; or yes or no about the picture, and about its thirds if there is something; auto: JSON, "
        "until it turns out that the model cannot write it",
    )  # fmt: skip
    parser.add_argument("--duration", type=positive, metavar="S", help="end after so many seconds (default: never)")
    args = parser.parse_args(argv)
    with Player(args.source, args.rate) as player:
        note(f"driving by {player.describe()} and {args.url}")
        asyncio.run(Robot(player, args).live())


if __name__ == "__main__":
    sys.exit(guarded(program))
