"""`/v1/stream`: binary frames with one outcome each, control messages, close codes."""

import asyncio
import json
from typing import Any

import pytest
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer, say, told
from support.realtime_clients import serving
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming

from inf_stream.base.errors import BudgetError
from inf_stream.base.events import Evidence, FinishReason, Warned
from inf_stream.server.protocols.adapter import TakeFrames
from inf_stream.server.protocols.stream import StreamAdapter
from inf_stream.server.protocols.watches import Alert, Watch, Watchman
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.live_session import FrameSettled


class Client:
    """One without a socket."""

    def __init__(self) -> None:
        self.session = FakeSession()
        self.watchman = Watchman(WATCH_LIMITS)
        self.adapter = StreamAdapter(self.session, LIMITS, self.watchman, "handle")

    def says(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return say(self.adapter, {"type": kind, **fields})

    def fails(self, kind: str, **fields: Any) -> tuple[str, str | None]:
        (error,) = self.says(kind, **fields)
        assert error["type"] == "error", error
        return error["code"], error["param"]


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_client_learns_who_answers_and_within_which_limits(client: Client) -> None:
    (hello,) = told(client.adapter.opened())
    assert (hello["type"], hello["model"], hello["handle"]) == ("hello", "lists", "handle")
    assert hello["limits"]["budget_tokens"] == 1000
    assert told(client.adapter.resumed()) == [hello]
    assert client.adapter.numbered(hello, 3)["seq"] == 3


def test_a_binary_message_is_a_frame_with_the_time_said_before_it(client: Client) -> None:
    assert client.says("frame", timestamp_ms=40) == []
    assert client.adapter.received(b"one") == [TakeFrames((b"one",), (40.0,), None)]
    assert client.adapter.received(b"two") == [TakeFrames((b"two",), (None,), None)]
    assert client.adapter.frames_taken(None, [0]) == []


def test_each_outcome_is_one_message(client: Client) -> None:
    (kept,) = client.adapter.emitted(FrameSettled(0, 1_500_000_000, "accepted"))
    assert kept == {"type": "frame", "number": 0, "at_s": 1.5, "outcome": "accepted"}
    (left,) = client.adapter.emitted(FrameSettled(1, 0, "dropped", "rate"))
    assert left == {"type": "frame", "number": 1, "at_s": 0.0, "outcome": "dropped", "reason": "rate"}


def test_a_question_about_a_time_that_is_not_there_is_answered_with_a_warning(client: Client) -> None:
    client.says("ask", id="q", text="what?")
    messages = answer(client.adapter, client.session.asked[-1][0], FinishReason.STOP, "a", warning="beware")
    assert [m.get("warning") for m in messages] == ["beware", None, "beware"]


def test_questions_keep_the_ids_of_the_client(client: Client) -> None:
    client.says("ask", id="mine", text="what?", aside=True, max_tokens=9, in_order=True)
    question, in_order = client.session.asked[-1]
    assert (question.text, question.aside, question.max_tokens, in_order) == ("what?", True, 9, True)
    assert client.fails("ask", id="mine", text="again?") == ("invalid_value", "id")
    assert client.says("cancel", id="mine") == []
    assert client.session.cancelled == [question.id]
    messages = answer(client.adapter, question, FinishReason.STOP, "a ", "cat")
    assert [m["type"] for m in messages] == ["answer.started", "answer.delta", "answer.delta", "answer.finished"]
    assert not [m for m in messages if "warning" in m]
    assert {m["id"] for m in messages} == {"mine"}
    assert (messages[-1]["text"], messages[-1]["reason"], messages[-1]["ttft_s"]) == ("a cat", "stop", 0.25)
    assert messages[-1]["evidence"][0] == {"at_s": 3.0, "share": 0.75}
    assert client.fails("cancel", id="mine") == ("not_active", "id")
    client.says("ask", id="mine", text="again?")


def test_memory_and_system_prompt_are_chosen_before_the_first_frame(client: Client) -> None:
    (configured,) = client.says("configure", instructions="be kind", budget_tokens=300)
    assert (configured["instructions"], configured["budget_tokens"]) == ("be kind", 300)
    assert client.session.options == SessionOptions("be kind", 300)
    (configured,) = client.says("configure")
    assert configured["budget_tokens"] == 300
    client.session.has_begun = True
    assert client.fails("configure", budget_tokens=20) == ("invalid_request", None)


def test_watches_are_set_and_taken_away(client: Client) -> None:
    (watching,) = client.says("watch", id="dog", question="a dog?")
    assert (watching["type"], watching["expect"]) == ("watching", "yes")
    assert client.watchman.watches == [Watch("dog", "a dog?")]
    alert = Alert(client.watchman.watches[0], "Yes.", 2_000_000_000, 1, (Evidence(1_000_000_000, 0.5),), {})
    (said,) = client.adapter.alerted(alert)
    assert isinstance(said, dict)
    assert (said["type"], said["metadata"]["trigger"], said["at_s"]) == ("alert", "dog", 2.0)
    assert client.says("unwatch", id="dog") == [{"type": "unwatched", "id": "dog"}]
    assert client.fails("unwatch", id="dog") == ("invalid_value", "id")


def test_statistics_and_warnings(client: Client) -> None:
    assert client.says("stats") == [{"type": "stats", "frames": {"received": 0}, "memory": None}]
    assert client.adapter.emitted(Warned("careful", 0)) == [{"type": "warning", "message": "careful", "at_s": 0.0}]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({}, "type"),
        ({"type": "dance"}, "type"),
        ({"type": []}, "type"),
        ({"type": "frame"}, "timestamp_ms"),
        ({"type": "frame", "timestamp_ms": "x"}, "timestamp_ms"),
        ({"type": "ask", "id": "a"}, "text"),
        ({"type": "ask", "text": "?"}, "id"),
        ({"type": "ask", "text": "?" * 201, "id": "a"}, "text"),
        ({"type": "ask", "text": "?", "id": "a", "max_tokens": 65}, "max_tokens"),
        ({"type": "ask", "text": "?", "id": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"type": "ask", "text": "?", "id": "a", "aside": "yes"}, "aside"),
        ({"type": "ask", "text": "?", "id": "a", "in_order": 1}, "in_order"),
        ({"type": "cancel"}, "id"),
        ({"type": "configure", "budget_tokens": "big"}, "budget_tokens"),
        ({"type": "configure", "instructions": []}, "instructions"),
        ({"type": "watch", "id": "a"}, "watch.question"),
        ({"type": "unwatch"}, "id"),
    ],
)
def test_a_bad_message_is_refused_by_field(client: Client, message: dict[str, Any], param: str) -> None:
    (error,) = say(client.adapter, message)
    assert (error["type"], error["param"]) == ("error", param)
    assert not client.session.asked


# ---- on sockets --------------------------------------------------------------------------------------


def test_frames_in_and_answers_out() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server, streaming(server) as client:
            assert (await client.next())["type"] == "hello"
            for kind in (".jpg", ".png", ".webp"):
                await client.frame(picture(kind))
            assert await client.outcomes(3) == dict.fromkeys(range(3), ("accepted", None))
            await client.say("ask", id="q", text="what?")
            finished = await client.until("answer.finished")
            assert (finished["id"], finished["reason"], finished["tokens"]) == ("q", "stop", 3)
            deltas = [m["text"] for m in client.heard if m["type"] == "answer.delta"]
            assert "".join(deltas) == finished["text"]
            assert [m["seq"] for m in client.heard] == list(range(1, len(client.heard) + 1))
            await client.say("stats")
            stats = await client.until("stats")
            assert stats["frames"]["accepted"] == 3
            assert stats["questions_waiting"] == 0

    run_clean(main())


def test_every_frame_has_one_outcome_whatever_it_is() -> None:
    async def main() -> None:
        whole = picture()
        frames = {
            whole: ("accepted", None),
            whole[: len(whole) // 2]: ("error", "invalid_image"),
            b"not an image": ("error", "invalid_image"),
            b"": ("error", "invalid_image"),
            picture(".png", 200, 200): ("error", "image_too_large"),
            picture(grey=10): ("accepted", None),
        }
        async with serving(frame_pixels=5000) as server, streaming(server) as client:
            for frame in frames:
                await client.frame(frame)
            outcomes = await client.outcomes(len(frames))
            assert [outcomes[number] for number in range(len(frames))] == list(frames.values())

    run_clean(main())


def test_frames_over_the_rate_and_over_the_queue_are_dropped_with_their_reason() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, queue_frames=2, frames_per_second=6) as server, streaming(server) as client:
            maker.gate.clear()
            for _ in range(9):
                await client.frame(picture())
            outcomes = await client.outcomes(3 + 3)
            assert list(outcomes.values()).count(("dropped", "rate")) == 3
            assert list(outcomes.values()).count(("dropped", "drop-oldest")) == 3
            maker.gate.set()
            outcomes = await client.outcomes(9)
            assert list(outcomes.values()).count(("accepted", None)) == 3

    run_clean(main())


def test_a_frame_the_engine_refuses_is_an_error_and_says_why() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: BudgetError("a frame too long")}))
        async with serving(maker) as server, streaming(server) as client:
            await client.frame(picture())
            assert await client.outcomes(1) == {0: ("error", "failed")}
            assert any("a frame too long" in m.get("message", "") for m in client.heard if m["type"] == "warning")
            await client.frame(picture())
            assert (await client.outcomes(2))[1] == ("accepted", None)

    run_clean(main())


def test_the_first_frame_stands_where_its_client_says() -> None:
    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            await client.say("stats")
            assert (await client.until("stats"))["stream_s"] > 0
            for stamp_ms in (0, 40):
                await client.say("frame", timestamp_ms=stamp_ms)
                await client.frame(picture())
            await client.outcomes(2)
            assert [m["at_s"] for m in client.heard if m["type"] == "frame"] == [0.0, 0.04]

    run_clean(main())


def test_a_blind_model_takes_no_frame() -> None:
    async def main() -> None:
        async with serving(ListMaker(sees=False)) as server, streaming(server) as client:
            await client.frame(picture())
            assert await client.outcomes(1) == {0: ("error", "unsupported_content")}

    run_clean(main())


def test_close_codes_say_what_was_wrong() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, sessions=1, message_bytes=2000, grace_s=0.0) as server:
            async with streaming(server) as first:
                await first.next()
                async with streaming(server) as second:
                    code, reason = await second.closed()
                    assert (code, "try again in" in reason) == (1013, True)
                await first.frame(b"x" * 3000)
                assert (await first.closed())[0] == 1009
            while server.hub.sessions:
                await asyncio.sleep(0.005)
            async with streaming(server) as third:
                maker.prepare = lambda engine: engine.failures.update({0: ZeroDivisionError("/secret/path.py")})
                await third.say("ask", id="a", text="?")
                finished = await third.until("answer.finished")
                assert finished["reason"] == "failed"
                code, reason = await third.closed()
                assert code == 1011
                assert "secret" not in reason + json.dumps(third.heard)

    run_clean(main())
