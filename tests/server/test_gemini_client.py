"""The official `google-genai` client, unmodified, against a whole server over TLS."""

import asyncio
from typing import Any

import pytest
from google.genai.errors import APIError
from google.genai.live import AsyncSession
from google.genai.types import (
    ActivityEnd,
    ActivityStart,
    Blob,
    Content,
    ContextWindowCompressionConfig,
    LiveServerMessage,
    Part,
    SessionResumptionConfig,
    SlidingWindow,
)
from support.gemini_clients import (
    KEY,
    PATH,
    Raw,
    blob,
    facts_of,
    frame,
    handle_of,
    serving_securely,
    text_of,
    turn,
)
from support.serving import ListMaker, picture, run_clean
from websockets.exceptions import InvalidStatus

RESUMABLE = SessionResumptionConfig()


def endless(maker: ListMaker) -> ListMaker:
    """The next engines answer for ever."""
    maker.prepare = lambda engine: setattr(engine, "tokens_per_answer", 10**9)
    return maker


async def begun(session: AsyncSession) -> str:
    """Wait for the first piece of an answer; returns it."""

    async def told() -> str:
        async for message in session.receive():
            if message.text:
                return message.text
        raise AssertionError("no answer came")

    return await asyncio.wait_for(told(), 20)


async def refused(session: AsyncSession) -> tuple[int, str]:
    """Code and reason with which the server hangs up."""
    try:
        while True:
            await turn(session)
    except APIError as error:
        return error.code, str(error)


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


def test_a_session_goes_on_in_another_connection_with_its_memory() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving_securely(maker) as server:
            async with server.live(session_resumption=RESUMABLE) as session:
                first_id = session.session_id
                await session.send_realtime_input(video=frame())
                await session.send_client_content(turns=Content(parts=[Part(text="what?")]))
                heard = await turn(session)
                await session.send_realtime_input(text="and?")
                heard += await turn(session)
                handle = handle_of(heard)
            await server.is_away()
            assert len(server.running.hub.sessions) == 1, "a goodbye does not end what may be resumed"
            async with server.live(session_resumption=SessionResumptionConfig(handle=handle)) as session:
                assert session.session_id == first_id
                await session.send_realtime_input(text="what was it?")
                missed = await turn(session)
                assert handle_of(missed)
                assert text_of(missed) == text_of(heard[-6:]), "the turn after the handle, again and whole"
                answered = await turn(session)
                assert text_of(answered) not in ("", text_of(missed))
        assert len(maker.made) == 1
        assert [m.split()[0] for m in maker.made[0].memory].count("question") == 3

    run_clean(main())


def test_a_connection_that_is_lost_within_an_answer_loses_nothing_of_it() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 40))
        async with serving_securely(maker) as server:
            async with server.live(session_resumption=RESUMABLE) as session:
                handle = handle_of([await anext(session.receive())])
                await session.send_realtime_input(text="tell me all")
                first = await begun(session)
                maker.gate.clear()
                session._ws.transport.abort()
            await server.is_away()
            maker.gate.set()
            async with server.live(session_resumption=SessionResumptionConfig(handle=handle)) as session:
                told = await turn(session)
                assert text_of(told).startswith(first)
                assert len(text_of(told).split()) == 40
                await session.send_realtime_input(text="and now?")
                assert len(text_of(await turn(session)).split()) == 40, "nothing is told twice"

    run_clean(main())


def test_a_client_that_comes_back_takes_the_session_over_from_its_other_connection() -> None:
    async def main() -> None:
        async with serving_securely() as server, server.live(session_resumption=RESUMABLE) as session:
            handle = handle_of([await anext(session.receive())])
            async with server.live(session_resumption=SessionResumptionConfig(handle=handle)) as second:
                assert (await refused(session))[0] == 1001
                await second.send_realtime_input(text="still there?")
                assert text_of(await turn(second))

    run_clean(main())


@pytest.mark.parametrize("handle", ["nonsense", "no-such-session.5"])
def test_an_unknown_handle_is_refused(handle: str) -> None:
    async def main() -> None:
        async with serving_securely() as server:
            with pytest.raises(APIError, match="no session has this handle") as error:
                async with server.live(session_resumption=SessionResumptionConfig(handle=handle)):
                    pass
            assert error.value.code == 1008
            assert not server.running.hub.sessions

    run_clean(main())


def test_a_handle_is_good_for_so_long_as_the_server_waits() -> None:
    async def main() -> None:
        async with serving_securely(grace_s=0.05) as server:
            async with server.live(session_resumption=RESUMABLE) as session:
                handle = handle_of([await anext(session.receive())])
            await server.is_empty()
            with pytest.raises(APIError, match="1008"):
                async with server.live(session_resumption=SessionResumptionConfig(handle=handle)):
                    pass

    run_clean(main())


def test_a_server_that_stops_says_so_lets_the_answer_end_and_hangs_up() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 30))
        heard: list[LiveServerMessage] = []

        async def listen(session: AsyncSession) -> int:
            try:
                while True:
                    async for message in session.receive():
                        heard.append(message)
                        told.set()
            except APIError as error:
                return int(error.code)

        told = asyncio.Event()
        async with serving_securely(maker) as server:
            context = server.live()
            session = await context.__aenter__()
            await session.send_realtime_input(text="tell me")
            listening = asyncio.create_task(listen(session))
            await told.wait()
        assert await listening == 1001
        (at,) = [i for i, m in enumerate(heard) if m.go_away]
        assert heard[at].go_away.time_left == "5s"
        assert any(m.text for m in heard[at:]), "before the answer's end"
        assert len(text_of(heard).split()) == 30
        assert heard[-1].server_content.turn_complete
        await context.__aexit__(None, None, None)

    run_clean(main())


def test_a_silent_client_is_told_before_its_session_ends_each_time() -> None:
    async def main() -> None:
        async with serving_securely(idle_timeout_s=2.0) as server, server.live() as session:
            for _ in range(2):
                told = await asyncio.wait_for(anext(session.receive()), 20)
                assert told.go_away is not None
                assert told.go_away.time_left in ("0s", "1s")
                await session.send_realtime_input(video=frame())
            told = await asyncio.wait_for(anext(session.receive()), 20)
            assert told.go_away is not None
            code, reason = await refused(session)
            assert code == 1000
            assert "nothing came for 2 s" in reason
            await server.is_empty()

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


def test_a_client_that_leaves_within_an_answer_leaves_nothing() -> None:
    async def main() -> None:
        maker = endless(ListMaker())
        async with serving_securely(maker) as server, server.live() as other:
            async with server.live() as session:
                await session.send_realtime_input(text="talk for ever")
                await begun(session)
            while len(server.running.hub.sessions) > 1:
                await asyncio.sleep(0.002)
            await other.send_realtime_input(text="still there?")
            assert await begun(other)

    run_clean(main())


# ---- the door ----------------------------------------------------------------------------------------


def test_a_key_is_asked_for_in_a_header_or_in_the_query() -> None:
    async def main() -> None:
        wrong = "another-key-of-many-characters"
        async with serving_securely() as server:
            with pytest.raises(InvalidStatus, match="401"):
                async with server.live(key=wrong):
                    pass
            async with server.live():
                pass
            nothing: dict[str, str] = {}
            for path in (PATH, f"{PATH}?key={wrong}", f"{PATH}?key="):
                with pytest.raises(InvalidStatus, match="401"):
                    async with server.socket(path, additional_headers=nothing):
                        pass
            async with server.socket(f"{PATH}?key={KEY}", additional_headers=nothing) as raw:
                await raw.say(setup={})
                assert "setupComplete" in await raw.next()
            with pytest.raises(InvalidStatus, match="401"):
                async with server.socket(f"/v1/stream?key={KEY}", additional_headers=nothing):
                    pass

    run_clean(main())


def test_all_versions_are_served_with_one_slash_or_two() -> None:
    async def main() -> None:
        async with serving_securely() as server:
            for version in ("v1", "v1beta", "v1alpha"):
                async with server.live(version=version) as session:
                    await session.send_realtime_input(text="hello")
                    assert text_of(await turn(session))
            async with server.socket("/" + PATH) as raw:
                await raw.say(setup={})
                assert "setupComplete" in await raw.next()
            for path in (PATH.replace("v1beta", "v9"), "//" + PATH):
                with pytest.raises(InvalidStatus, match="404"):
                    async with server.socket(path):
                        pass

    run_clean(main())


def test_messages_come_in_frames_of_text_or_bytes() -> None:
    async def main() -> None:
        async with serving_securely() as server, server.socket() as raw:
            await raw.socket.send(b'{"setup": {"model": "models/any"}}')
            assert "setupComplete" in await raw.next()
            await raw.say(
                realtime_input={"media_chunks": [{"mime_type": "image/png", "data": blob(picture(".png"))["data"]}]}
            )
            await raw.socket.send(
                b'{"clientContent": {"turns": [{"parts": [{"text": "what?"}]}], "turnComplete": true}}'
            )
            heard = await raw.until("turnComplete")
            assert sum("modelTurn" in m["serverContent"] for m in heard) == 4
            assert server.running.hub.sessions[0].stats()["frames"]["accepted"] == 1

    run_clean(main())


def test_who_does_not_begin_with_the_setup_gets_no_session() -> None:
    async def first(raw: Raw, message: str | bytes) -> tuple[int, str]:
        await raw.socket.send(message)
        return await raw.closed()

    async def main() -> None:
        async with serving_securely(header_timeout_s=0.3, message_bytes=2000) as server:
            for message in (
                '{"clientContent": {}}',
                "{",
                b"\xff",
                '{"setup": 5}',
                '{"setup": {}, "clientContent": {}}',
            ):
                async with server.socket() as raw:
                    assert (await first(raw, message))[0] == 1007
            async with server.socket() as raw:
                assert (await first(raw, "x" * 3000))[0] == 1009
            async with server.socket() as raw:
                assert await raw.closed() == (1008, "no first message came within 0.3 s")
            async with server.socket() as raw:
                raw.socket.transport.abort()
            assert next(server.running.hub._numbers) == 1, "no session was ever opened"

    run_clean(main())


def test_a_second_setup_ends_the_session() -> None:
    async def main() -> None:
        async with serving_securely() as server, server.socket() as raw:
            await raw.say(setup={})
            await raw.say(setup={})
            assert await raw.closed() == (1007, "the setup came already; it is the first message and no other")
            await server.is_empty()

    run_clean(main())


def test_a_session_too_many_is_told_when_to_come_back() -> None:
    async def main() -> None:
        async with serving_securely(sessions=1) as server, server.live():
            with pytest.raises(APIError, match="try again in") as error:
                async with server.live():
                    pass
            assert error.value.code == 1013

    run_clean(main())
