"""Sessions of Gemini Live that outlive their server, by the official client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.genai.types import Content, Part, SessionResumptionConfig
from support.durable import ReadingMaker, opened, until_saved, wreck
from support.gemini_clients import RESUMABLE, SecureServer, frame, handle_of, serving_securely, text_of, turn
from support.serving import ListMaker, run_clean


@asynccontextmanager
async def durable(path: Path, maker: ListMaker | None = None, **changes: Any) -> AsyncIterator[SecureServer]:
    """A whole server that keeps its sessions there."""
    changes = {"state_every_s": 1e6} | changes
    with contextlib.closing(opened(path)) as folder:
        async with serving_securely(maker or ReadingMaker(), folder=folder, **changes) as server:
            yield server


def back(handle: str) -> SessionResumptionConfig:
    return SessionResumptionConfig(handle=handle)


async def asked(session: Any, text: str) -> str:
    await session.send_realtime_input(text=text)
    return text_of(await turn(session))


def test_a_stopped_server_is_followed_by_another_to_the_same_answers(tmp_path: Path) -> None:
    async def main() -> None:
        setup = {"system_instruction": "be kind", "max_output_tokens": 20, "session_resumption": RESUMABLE}
        said = {"turns": Content(parts=[Part(text="I am Ada")]), "turn_complete": False}
        async with durable(tmp_path / "a") as server, server.live(**setup) as session:
            await session.send_realtime_input(video=frame())
            wanted = [await asked(session, "one?")]
            await session.send_client_content(**said)
            wanted.append(await asked(session, "two?"))
        async with durable(tmp_path / "b") as server:
            async with server.live(**setup) as session:
                session_id = session.session_id
                await session.send_realtime_input(video=frame())
                told = [await asked(session, "one?")]
                handle = handle_of([await anext(session.receive())])
                await session.send_client_content(**said)
            await server.is_away()
        await until_saved(tmp_path / "b", ".whole")
        async with (
            durable(tmp_path / "b") as server,
            server.live(**setup | {"session_resumption": back(handle)}) as session,
        ):
            assert session.session_id == session_id
            told.append(await asked(session, "two?"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(turn(session), 0.1)
        assert told == wanted

    run_clean(main())


def test_the_turn_of_a_question_that_was_lost_with_its_server_ends(tmp_path: Path) -> None:
    async def main() -> None:
        maker = ReadingMaker()
        async with (
            durable(tmp_path / "s", maker, state_every_s=0.3) as server,
            server.live(session_resumption=RESUMABLE) as session,
        ):
            handle = handle_of([await anext(session.receive())])
            maker.gate.clear()
            await session.send_realtime_input(video=frame())
            await session.send_realtime_input(text="what?")
            await asyncio.sleep(0.5)
            maker.gate.set()
            await until_saved(tmp_path / "s", ".live")
            left = wreck(tmp_path / "s", tmp_path / "left")
            seen = await turn(session)
        async with durable(left) as server, server.live(session_resumption=back(handle)) as session:
            cut = await turn(session)
            parts = [part for m in cut if (content := m.server_content) and content.model_turn
                     for part in content.model_turn.parts or ()]  # fmt: skip
            (lost,) = [part.part_metadata["inf_stream"] for part in parts if part.part_metadata]
            assert lost["lost_s"] > 0
            assert not text_of(cut)
            assert [m.server_content.interrupted for m in cut[-2:] if m.server_content] == [True, None]
            assert text_of(seen), "the answer that was lost"
            assert await asked(session, "what?"), "and can be asked for again"
            handle = handle_of([await anext(session.receive())])
        assert handle

    run_clean(main())


def test_a_session_without_handles_is_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path) as server, server.live() as session:
            await session.send_realtime_input(video=frame())
            assert await asked(session, "what?")
        await until_saved(tmp_path)

    run_clean(main())
