"""Streams a video, an image folder or a camera to `inf-stream serve` and asks it questions, by the official client.

    pip install openai websockets
    inf-stream serve                                                   # in another terminal
    python demos/clients/realtime_client.py "What do you see?" --source party.mp4 --every 10
    python demos/clients/realtime_client.py --watch "Is there a dog?"  # camera:0, until Ctrl-C

Nothing here is particular to this server but `timestamp_ms`, `session.inf_stream` and the address.
"""

import argparse
import asyncio
import base64
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from link import NOT_CONNECTED, ClientError, explain, guarded, make_parser, note, positive, show_status
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from pictures import Picture, Player

from inf_stream.base.clock import format_clock, nanoseconds

LOOK_S = 0.2
"""At the end of the source: between looks at whether everything is answered."""


def as_item(picture: Picture) -> Any:
    """A picture as the Realtime protocol has it."""
    image = {
        "type": "input_image",
        "image_url": "data:image/jpeg;base64," + base64.b64encode(picture.jpeg()).decode(),
        "timestamp_ms": 1000 * picture.at_s,
    }
    return {"type": "message", "role": "user", "content": [image]}


class Conversation:
    """A source goes in, questions are asked along the way, answers are printed."""

    def __init__(self, connection: AsyncRealtimeConnection, args: argparse.Namespace):
        self._connection, self._args = connection, args
        self._watches = {f"watch{number}": question for number, question in enumerate(args.watch, 1)}
        self._has_ended = False

    async def hold(self, player: Player) -> None:
        """Until the source has ended and everything is answered."""
        if self._watches:
            watches = [{"id": watch_id, "question": question} for watch_id, question in self._watches.items()]
            await self._update({"inf_stream": {"watches": watches}})
        tasks = {asyncio.create_task(self._send(player)), asyncio.create_task(self._listen())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, player: Player) -> None:
        asked_s, asked_of, picture = 0.0, None, None
        for sent in itertools.count(1):
            newer = await player.next()
            if newer is None:
                break
            picture = newer
            await self._connection.conversation.item.create(item=as_item(picture))
            show_status(f"{format_clock(nanoseconds(picture.at_s))}  {sent} pictures sent")
            if picture.at_s - asked_s >= self._args.every:
                asked_s, asked_of = picture.at_s, picture
                await self._ask()
        if picture is not asked_of:
            await self._ask()
        self._has_ended = True
        while True:
            await self._update({})
            await asyncio.sleep(LOOK_S)

    async def _update(self, session: dict[str, Any]) -> None:
        """Change the session; the reply holds its statistics."""
        await self._connection.session.update(session={"type": "realtime", **session})  # type: ignore[typeddict-item]

    async def _ask(self) -> None:
        """A question out of band: it leaves no trace in the memory, and several may wait at once."""
        if self._args.question is None:
            return
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": self._args.question}]}
        response: Any = {"conversation": "none", "input": [item]}
        await self._connection.response.create(response=response)

    async def _listen(self) -> None:
        """Print answers as they end, until nothing more will come."""
        while True:
            event: Any = await self._connection.recv()
            if event.type == "error":
                raise ClientError(event.error.message)
            if event.type == "response.done":
                self._show(event.response)
            elif event.type == "session.updated" and self._has_ended:
                stats = event.session.inf_stream["stats"]
                if not stats["questions_waiting"] and not stats["frames"]["waiting"]:
                    return

    def _show(self, response: Any) -> None:
        """One answer, or why there is none."""
        facts = response.metadata
        text = "".join(part.text or "" for item in response.output for part in item.content)
        if response.status == "failed":
            text = f"no answer: {response.status_details.error.message}"
        alert = f"ALERT, {self._watches[facts['trigger']]} " if "trigger" in facts else ""
        show_status("")
        print(f"[{format_clock(nanoseconds(float(facts['stream_time_s'])))}] {alert}{text}", flush=True)


async def converse(args: argparse.Namespace, player: Player) -> None:
    """Connect, and talk until the source ends."""
    client = AsyncOpenAI(api_key=args.key, base_url=f"{args.url}/v1")
    try:
        async with client, client.realtime.connect(model="inf-stream") as connection:
            await Conversation(connection, args).hold(player)
    except BrokenPipeError:  # of the output, not of the server
        raise
    except NOT_CONNECTED as error:
        raise ClientError(explain(error, args.url)) from error


def program(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("question", nargs="?", help="asked again and again, and at the end of the source")
    parser.add_argument("--fps", type=positive, default=1.0, help="pictures a second (default: %(default)g)")
    parser.add_argument(
        "--every", type=positive, default=10.0, metavar="S", help="seconds between questions (default: %(default)g)"
    )
    parser.add_argument(
        "--watch", action="append", default=[], metavar="QUESTION",
        help="a yes-or-no question that the server asks by itself; may be repeated",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.question is None and not args.watch:
        parser.error("there is nothing to ask; give a question or --watch")
    with Player(args.source, args.fps) as player:
        note(f"streaming {player.describe()} to {args.url}")
        asyncio.run(converse(args, player))


if __name__ == "__main__":
    sys.exit(guarded(program))
