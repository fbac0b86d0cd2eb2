"""Streams a video, an image folder or a camera to `inf-stream serve` and asks it questions, by the official client.

    pip install openai websockets
    inf-stream serve                                                   # in another terminal
    python demos/clients/realtime_client.py party.mp4 "What is happening?" --every 10
    python demos/clients/realtime_client.py camera:0 --watch "Is there a dog?"

Nothing here is particular to this server but `timestamp_ms`, `session.inf_stream` and the address.
"""

import argparse
import asyncio
import base64
import time
from collections.abc import Iterator

import cv2
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from inf_stream.base.config import SourceSettings
from inf_stream.base.events import Frame, FrameArrived
from inf_stream.sources import open_source

LONGEST_EDGE = 768


def frames(address: str, fps: float) -> Iterator[Frame]:
    """Sampled frames of a video."""
    with open_source(address, SourceSettings(fps=fps)) as source:
        for event in source:
            if isinstance(event, FrameArrived):
                yield event.frame


def as_item(frame: Frame) -> dict[str, object]:
    """A frame as the Realtime protocol has it."""
    height, width = frame.pixels.shape[:2]
    scale = min(1.0, LONGEST_EDGE / max(height, width))
    small = cv2.resize(frame.pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    image = {
        "type": "input_image",
        "image_url": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
        "timestamp_ms": frame.at_ns / 1e6,
    }
    return {"type": "message", "role": "user", "content": [image]}


async def send(connection: AsyncRealtimeConnection, options: argparse.Namespace) -> None:
    """All frames at the pace of the video, and a question every so many seconds of it, and at the end."""
    began_s, asked_s = time.monotonic(), 0.0
    source = frames(options.video, options.fps)
    while (frame := await asyncio.to_thread(next, source, None)) is not None:
        at_s = frame.at_ns / 1e9
        await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
        await connection.conversation.item.create(item=as_item(frame))  # type: ignore[arg-type]
        if options.every and at_s - asked_s >= options.every:
            asked_s = at_s
            await ask(connection, options.question, {"at_s": f"{at_s:.0f}"})
    await ask(connection, options.question, {"last": "yes"})


async def ask(connection: AsyncRealtimeConnection, question: str, metadata: dict[str, str]) -> None:
    """A question out of band: it leaves no trace in the memory, and several may wait at once."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]}
    await connection.response.create(
        response={"conversation": "none", "input": [item], "metadata": metadata}  # type: ignore[list-item]
    )


async def show(connection: AsyncRealtimeConnection) -> None:
    """Answers as they end, until the last one."""
    async for event in connection:
        if event.type == "error":
            print(f"error: {event.error.message}")
        if event.type != "response.done":
            continue
        facts = event.response.metadata or {}
        text = "".join(part.text or "" for item in event.response.output or [] for part in item.content)  # type: ignore
        print(f"[{float(facts.get('stream_time_s', 0)):6.1f} s] {'ALERT ' if 'trigger' in facts else ''}{text}")
        if "last" in facts:
            return


async def main() -> None:
    """Run the client."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="file, folder of images, camera:0, rtsp://...")
    parser.add_argument("question", nargs="?", default="What do you see?")
    parser.add_argument("--server", default="http://127.0.0.1:8765/v1")
    parser.add_argument("--key", default="none needed")
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--every", type=float, default=0.0, help="ask every so many seconds of the video, too")
    parser.add_argument("--watch", help="a yes-or-no question; its alerts come unasked")
    options = parser.parse_args()
    client = AsyncOpenAI(api_key=options.key, base_url=options.server)
    async with client, client.realtime.connect(model="inf-stream") as connection:
        if options.watch:
            watches = [{"id": "watch", "question": options.watch}]
            await connection.session.update(session={"type": "realtime", "inf_stream": {"watches": watches}})  # type: ignore
        await asyncio.gather(send(connection, options), show(connection))


if __name__ == "__main__":
    asyncio.run(main())
