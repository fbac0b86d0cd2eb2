"""Sessions of the Gemini Live protocol that outlive their server; `test_durable.py` has what all protocols share."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.genai.types import ContextWindowCompressionConfig, SessionResumptionConfig
from support.durable import ReadingMaker, opened, saved, until_saved, wreck
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, told
from support.gemini_clients import (
    RESUMABLE,
    Raw,
    SecureServer,
    blob,
    frame,
    handle_of,
    refused,
    serving_securely,
    text_of,
    turn,
)
from support.serving import run_clean

from inf_stream.base.errors import StateError
from inf_stream.base.events import FinishReason
from inf_stream.base.state import State
from inf_stream.server.protocols.adapter import DurableAdapter
from inf_stream.server.protocols.gemini import GeminiAdapter
from inf_stream.server.protocols.watches import Watchman
from inf_stream.session.answer import unanswered


@contextlib.asynccontextmanager
async def kept_in(path: Path, maker: ReadingMaker | None = None, **changes: Any) -> AsyncIterator[SecureServer]:
    """A server with that state folder, which saves nothing now and then unless `changes` say so."""
    with contextlib.closing(opened(path)) as folder:
        settings = {"state_every_s": 1e6} | changes
        async with serving_securely(maker or ReadingMaker(), folder=folder, **settings) as server:
            yield server


async def set_up(client: Raw, handle: str | None = None, **more: Any) -> list[dict[str, Any]]:
    """The setup, and what is told up to the handle that answers it."""
    resumption = {} if handle is None else {"handle": handle}
    await client.say(setup={"model": "any", "sessionResumption": resumption, **more})
    return await client.until("sessionResumptionUpdate")


def handle_in(messages: list[dict[str, Any]]) -> str:
    return str([m["sessionResumptionUpdate"]["newHandle"] for m in messages if "sessionResumptionUpdate" in m][-1])


def extras_in(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our metadata of all parts."""
    turns = [m.get("serverContent", {}).get("modelTurn", {}) for m in messages]
    metadata = [part.get("partMetadata", {}) for one in turns for part in one.get("parts", ())]
    return [one["inf_stream"] for one in metadata if "inf_stream" in one]


def test_a_session_goes_on_after_a_stop_with_its_setup_and_what_was_not_asked_yet(tmp_path: Path) -> None:
    async def begin(session: Any) -> list[Any]:
        await session.send_realtime_input(video=frame())
        await session.send_realtime_input(text="one?")
        heard = await turn(session)
        await session.send_client_content(turns={"parts": [{"text": "first half,"}]}, turn_complete=False)
        return heard

    async def end(session: Any) -> str:
        await session.send_client_content(turns={"parts": [{"text": "second half"}]}, turn_complete=True)
        return text_of(await turn(session))

    async def main() -> None:
        setup: dict[str, Any] = {
            "session_resumption": RESUMABLE,
            "system_instruction": "be kind",
            "context_window_compression": ContextWindowCompressionConfig(trigger_tokens=300),
        }
        async with serving_securely(ReadingMaker()) as server, server.live(**setup) as session:
            await begin(session)
            wanted = await end(session)
        async with kept_in(tmp_path) as server:
            context = server.live(**setup)
            session = await context.__aenter__()
            heard = await begin(session)
            (live,) = server.running.channels
            while not live.adapter.state().facts["unasked"]:  # type: ignore[attr-defined]
                await asyncio.sleep(0.002)
        assert (await refused(session))[0] == 1001
        await context.__aexit__(None, None, None)
        await until_saved(tmp_path, ".whole")
        maker = ReadingMaker()
        first_id, setup["session_resumption"] = session.session_id, SessionResumptionConfig(handle=handle_of(heard))
        async with kept_in(tmp_path, maker) as server, server.live(**setup) as session:
            assert session.session_id == first_id
            assert text_of(await turn(session)) == text_of(heard), "the turn after the handle, again and whole"
            assert await end(session) == wanted
        assert (maker.options[0].instructions, maker.options[0].budget_tokens) == ("be kind", 300)

    run_clean(main())


def test_after_a_crash_the_client_is_told_what_is_lost_and_an_open_turn_ends(tmp_path: Path) -> None:
    watch = {"id": "dog", "question": "a dog?", "expect": "", "every_s": 2.0, "cooldown_s": 0}
    instruction = {"parts": [{"text": "be kind", "partMetadata": {"inf_stream": {"watches": [watch]}}}]}

    async def main() -> None:
        maker = ReadingMaker()
        async with kept_in(tmp_path / "s", maker, state_every_s=0.3) as server, server.socket() as client:
            first = await set_up(client, systemInstruction=instruction)
            maker.gate.clear()
            await client.say(realtimeInput={"video": blob()})
            await client.say(realtimeInput={"text": "two?"})
            await asyncio.sleep(0.5)
            maker.gate.set()
            await until_saved(tmp_path / "s", ".live")
            left = wreck(tmp_path / "s", tmp_path / "left")
        async with kept_in(left) as server:
            async with server.socket() as again:
                greeting = await set_up(again, handle_in(first))
                assert greeting[0] == first[0], "the same session"
                (lost,) = extras_in([await again.next()])
                assert 0 < lost["lost_s"] < 60
                ended = await again.until("turnComplete")
                assert any(m.get("serverContent", {}).get("interrupted") for m in ended)
                await again.say(realtimeInput={"text": "three?"})
                answered = await again.until("sessionResumptionUpdate")
                number = int(handle_in(answered).rpartition(".")[2])
                assert number > 10**12, "no number is used twice"
                await again.say(realtimeInput={"video": blob(timestamp_ms=60_000)})
                alert = await again.until("turnComplete")
                assert extras_in(alert)[0]["trigger"] == "dog", "the watch was restored"
                latest = handle_in(await again.until("sessionResumptionUpdate"))
            await server.is_away()
            async with server.socket() as third:
                await set_up(third, latest)
                assert extras_in([await third.next()]) == [lost], "it is said again to who comes back again"

    run_clean(main())


def test_a_session_that_cannot_be_resumed_is_not_saved(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept_in(tmp_path, state_every_s=0.05) as server, server.live() as session:
            await session.send_realtime_input(text="one?")
            await turn(session)
            await asyncio.sleep(0.3)
            assert not saved(tmp_path)
        assert not saved(tmp_path)

    run_clean(main())


def test_a_restored_adapter_has_what_the_first_one_had() -> None:
    def says(adapter: GeminiAdapter, **message: Any) -> list[dict[str, Any]]:
        return told(adapter.received(json.dumps(message)))

    def made() -> tuple[GeminiAdapter, FakeSession]:
        session = FakeSession()
        return GeminiAdapter(session, LIMITS, Watchman(WATCH_LIMITS), "hand-le"), session

    adapter, session = made()
    says(adapter, setup={"sessionResumption": {"transparent": True}, "systemInstruction": "be kind", "tools": [{}]})
    says(adapter, realtimeInput={"text": "one?"})
    session.has_begun = True
    says(adapter, contextUpdate={"systemInstruction": "be rude"})
    says(adapter, clientContent={"turns": [{"parts": [{"text": "not asked yet"}]}]})
    kept = json.dumps(adapter.state().facts)
    assert "hand-le" not in kept
    again, second = made()
    assert isinstance(again, DurableAdapter)
    second.has_begun = True
    again.restore(State(facts=json.loads(kept)))
    assert again.may_return(lost=False)
    assert told(again.resumed()) == told(adapter.resumed())
    assert told(again.resumed())[1]["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == 3
    (question, _) = session.asked[0]
    ended = unanswered(question, FinishReason.FAILED)
    assert told(again.emitted(ended)) == told(adapter.emitted(ended))
    for one in (adapter, again):
        says(one, realtimeInput={"text": "two?"})
    assert second.asked[-1][0].text == session.asked[-1][0].text == "be rude\n\none?\nnot asked yet\ntwo?"


@pytest.mark.parametrize("broken", [{"config": []}, {"is_set_up": 1}, {"unasked": {}}, {"turns": []}, {"consumed": -1}])
def test_a_state_that_no_adapter_had_is_refused(broken: dict[str, Any]) -> None:
    adapter = GeminiAdapter(FakeSession(), LIMITS, Watchman(WATCH_LIMITS), "handle")
    with pytest.raises(StateError):
        adapter.restore(State(facts=adapter.state().facts | broken))
