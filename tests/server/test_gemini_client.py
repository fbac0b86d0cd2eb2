"""The official `google-genai` client, unmodified, against a whole server over TLS."""

import asyncio
from typing import Any

import pytest
from google.genai.errors import APIError
from google.genai.types import (
    ActivityEnd,
    ActivityHandling,
    ActivityStart,
    Blob,
    Content,
    ContextWindowCompressionConfig,
    Part,
    SessionResumptionConfig,
    SlidingWindow,
)
from support.gemini_clients import (
    RESUMABLE,
    begun,
    endless,
    facts_of,
    frame,
    handle_of,
    refused,
    serving_securely,
    text_of,
    turn,
)
from support.serving import ListMaker, picture, run_clean

from inf_stream.base.errors import BudgetError


def test_frames_questions_and_streamed_answers() -> None:
    async def main() -> None:
        maker = ListMaker()
        compression = ContextWindowCompressionConfig(
            trigger_tokens=300, sliding_window=SlidingWindow(target_tokens=200)
        )
        async with serving_securely(maker) as server:
            async with server.live(
                response_modalities=["TEXT"],
                system_instruction="be kind",
                max_output_tokens=50,
                temperature=0.5,
                context_window_compression=compression,
            ) as session:
                (live,) = server.running.hub.sessions
                assert session.session_id == live.id
                await session.send_realtime_input(video=frame())
                await session.send_realtime_input(media=frame(20))
                await session.send_client_content(
                    turns=Content(role="user", parts=[Part(text="look")]), turn_complete=False
                )
                image = Part(inline_data=frame(50), part_metadata={"inf_stream": {"timestamp_ms": 5000}})
                await session.send_client_content(turns={"role": "user", "parts": [image, Part(text="what is it?")]})
                messages = await turn(session)
                assert len(text_of(messages).split()) == 3
                *pieces, last, done = [m.server_content for m in messages]
                assert not any(p is None or p.generation_complete or p.turn_complete for p in pieces)
                assert last is not None
                assert done is not None
                assert (last.generation_complete, last.turn_complete, done.turn_complete) == (True, None, True)
                facts = facts_of(messages)
                assert facts["evidence"][0]["share"] == 0.5
                assert facts["stream_time_s"] >= 5.0, "the last frame's time"
                assert facts["ignored"] == ["generationConfig.temperature"]
                usage = messages[-1].usage_metadata
                assert usage is not None
                assert usage.response_token_count == 3
                await session.send_realtime_input(text="and now?")
                assert len(text_of(await turn(session)).split()) == 3
                assert live.stats()["frames"]["accepted"] == 3
            await server.is_empty()
        assert maker.options[0].instructions == "be kind"
        assert maker.options[0].budget_tokens == 300
        seen = " ".join(maker.made[0].memory).partition("question")[0]
        assert seen.replace("frames", "").split() == ["0", "1", "2"], "the frame of its own turn among them"
        assert sum(m.startswith("question") for m in maker.made[0].memory) == 2

    run_clean(main())


@pytest.mark.parametrize("by", ["turn", "text", "activity"])
def test_who_speaks_interrupts_and_is_answered(by: str) -> None:
    async def main() -> None:
        maker = endless(ListMaker())
        async with serving_securely(maker) as server, server.live() as session:
            await session.send_client_content(turns=Content(parts=[Part(text="talk")]))
            await begun(session)
            maker.made[0].tokens_per_answer = 10**9
            if by == "turn":
                await session.send_client_content(turns=Content(parts=[Part(text="stop")]))
            elif by == "text":
                await session.send_realtime_input(text="stop")
            else:
                await session.send_realtime_input(activity_start=ActivityStart())
                await session.send_realtime_input(text="stop")
                await session.send_realtime_input(activity_end=ActivityEnd())
            cut = await turn(session)
            contents = [m.server_content for m in cut if m.server_content]
            assert [c.interrupted for c in contents[-2:]] == [True, None]
            assert contents[-1].turn_complete
            assert not any(c.generation_complete for c in contents)
            await begun(session)
            assert [m.split()[0] for m in maker.made[0].memory] == ["question", "said", "question"]

    run_clean(main())


def test_each_of_many_hasty_questions_has_its_turn() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving_securely(maker) as server, server.live() as session:
            maker.gate.clear()
            for number in range(40):
                await session.send_realtime_input(text=f"{number}?")
            (live,) = server.running.hub.sessions
            while live._next_question < 40:
                await asyncio.sleep(0.002)
            maker.gate.set()
            turns = [await turn(session) for _ in range(40)]
            whole = [any(m.server_content and m.server_content.generation_complete for m in t) for t in turns]
            assert whole == [False] * 39 + [True]

    run_clean(main())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"response_modalities": ["AUDIO"]}, "this server answers in text alone; ask for"),
        ({"context_window_compression": {"trigger_tokens": 1}}, "budget of 1 tokens; 16 to 1000 are allowed"),
        ({"system_instruction": "x" * 20_000}, "has 20000 characters; at most 16384 are taken"),
    ],
)
def test_a_setup_that_cannot_be_met_is_refused_with_why(config: dict[str, Any], words: str) -> None:
    async def main() -> None:
        async with serving_securely() as server:
            with pytest.raises(APIError, match=words) as error:
                async with server.live(**config):
                    pass
            assert error.value.code == 1007
            await server.is_empty()

    run_clean(main())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"audio": Blob(data=b"\x00\x00", mime_type="audio/pcm;rate=16000")}, "takes no audio; send text and images"),
        ({"video": Blob(data=picture()[:300], mime_type="image/jpeg")}, "the image is cut short"),
        ({"video": Blob(data=b"\xff\xd8" + b"x" * 99, mime_type="image/jpeg")}, "the image's header is damaged"),
        ({"video": Blob(data=b"GIF89a", mime_type="image/gif")}, "neither JPEG, PNG nor WebP"),
        ({"text": "x" * 20_000}, "has 20000 characters"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_why_and_the_session_can_go_on(said: dict[str, Any], words: str) -> None:
    async def main() -> None:
        async with serving_securely() as server:
            async with server.live(session_resumption=RESUMABLE) as session:
                handle = handle_of([await anext(session.receive())])
                await session.send_realtime_input(**said)
                code, reason = await refused(session)
                assert code == 1007
                assert words in reason
            async with server.live(session_resumption=SessionResumptionConfig(handle=handle)) as session:
                await session.send_realtime_input(text="still there?")
                assert text_of(await turn(session))
            async with server.live() as session:
                await session.send_realtime_input(**said)
                assert (await refused(session))[0] == 1007
                while len(server.running.hub.sessions) > 1:
                    await asyncio.sleep(0.002)

    run_clean(main())


def test_an_answer_that_fails_hangs_up_with_why_and_the_session_goes_on() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: BudgetError("no memory")}))
        async with serving_securely(maker) as server:
            async with server.live(session_resumption=RESUMABLE) as session:
                handle = handle_of([await anext(session.receive())])
                await session.send_realtime_input(text="what?")
                code, reason = await refused(session)
                assert code == 1011
                assert "failed: no memory" in reason
            async with server.live(session_resumption=SessionResumptionConfig(handle=handle)) as session:
                cut = await turn(session)
                assert [m.server_content.interrupted for m in cut if m.server_content] == [True, None]
                await session.send_realtime_input(text="and now?")
                assert text_of(await turn(session))

    run_clean(main())


def test_too_many_questions_at_once_are_refused() -> None:
    async def main() -> None:
        maker = ListMaker()
        maker.gate.clear()
        patient = {"activity_handling": ActivityHandling.NO_INTERRUPTION}
        async with serving_securely(maker) as server, server.live(realtime_input_config=patient) as session:
            for number in range(20):
                await session.send_realtime_input(text=f"{number}?")
            code, reason = await refused(session)
            assert code == 1013
            assert "too many questions wait" in reason
            maker.gate.set()
            await server.is_empty()

    run_clean(main())


def test_dropped_frames_are_no_errors() -> None:
    async def main() -> None:
        async with serving_securely(frames_per_second=0.01) as server, server.live() as session:
            for _ in range(20):
                await session.send_realtime_input(video=frame())
            await session.send_realtime_input(text="what?")
            assert text_of(await turn(session))
            (live,) = server.running.hub.sessions
            assert live.stats()["frames"]["reasons"] == {"rate": live.stats()["frames"]["dropped"]}
            assert live.stats()["frames"]["dropped"] >= 18

    run_clean(main())


def test_watches_come_with_the_instructions_and_alerts_are_turns() -> None:
    async def main() -> None:
        watches = [{"id": "any", "question": "anything?", "expect": "", "every_s": 0.5}]
        instruction = Content(parts=[Part(text="be kind", part_metadata={"inf_stream": {"watches": watches}})])
        async with (
            serving_securely(watch_interval_s=0.1) as server,
            server.live(system_instruction=instruction) as session,
        ):
            await session.send_realtime_input(video=frame())
            alert = await turn(session)
            assert facts_of(alert)["trigger"] == "any"
            assert text_of(alert)
            await session.send_realtime_input(text="what?")
            assert "trigger" not in facts_of(await turn(session))

    run_clean(main())
