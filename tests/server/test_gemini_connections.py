"""Clients of the Gemini Live protocol that come in, go, come back, or are refused."""

import asyncio
import logging

import pytest
from google.genai.errors import APIError
from google.genai.live import AsyncSession
from google.genai.types import (
    Content,
    LiveServerMessage,
    Part,
    SessionResumptionConfig,
)
from support.gemini_clients import (
    KEY,
    PATH,
    RESUMABLE,
    Raw,
    begun,
    blob,
    endless,
    frame,
    handle_of,
    refused,
    serving_securely,
    text_of,
    turn,
)
from support.serving import ListMaker, picture, run_clean
from websockets.exceptions import InvalidStatus


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


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_client_without_a_handle_that_leaves_within_an_answer_leaves_nothing(goodbye: bool) -> None:
    async def main() -> None:
        maker = endless(ListMaker())
        async with serving_securely(maker, grace_s=1000.0) as server, server.live() as other:
            async with server.live() as session:
                await session.send_realtime_input(text="talk for ever")
                await begun(session)
                if not goodbye:
                    session._ws.transport.abort()
            while len(server.running.hub.sessions) > 1:
                await asyncio.sleep(0.002)
            await other.send_realtime_input(text="still there?")
            assert await begun(other)

    run_clean(main())


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
            with pytest.raises(InvalidStatus, match="401"):
                async with server.socket("/" + PATH, additional_headers={"x-goog-api-key": "no"}):
                    pass
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


def test_a_second_setup_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inf_stream")

    async def main() -> None:
        async with serving_securely() as server, server.socket() as raw:
            await raw.say(setup={})
            await raw.say(setup={})
            assert await raw.closed() == (1007, "the setup came already; it is the first message and no other")
            await server.is_empty()

    run_clean(main())
    (closed,) = [record for record in caplog.records if record.message == "session closed"]
    assert closed.fields["code"] == 1007, "the log says who ended it"  # type: ignore[attr-defined]


def test_a_session_too_many_is_told_when_to_come_back() -> None:
    async def main() -> None:
        async with serving_securely(sessions=1) as server, server.live():
            with pytest.raises(APIError, match="try again in") as error:
                async with server.live():
                    pass
            assert error.value.code == 1013

    run_clean(main())
