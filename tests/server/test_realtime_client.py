"""The official `openai` client, unmodified, against a whole server."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from support.realtime_clients import KEY, connected, image_item, serving, text_item, until
from support.serving import ListMaker, run_clean
from websockets.exceptions import ConnectionClosed


def test_frames_questions_and_streamed_answers() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, keys=(KEY,)) as server, connected(server) as connection:
            (created,) = await until(connection, "session.created")
            assert created.session.model == "lists"
            await connection.session.update(
                session={
                    "type": "realtime",
                    "instructions": "be kind",
                    "truncation": {
                        "type": "retention_ratio",
                        "retention_ratio": 0.8,
                        "token_limits": {"post_instructions": 300},
                    },
                }
            )
            (updated,) = await until(connection, "session.updated")
            assert updated.session.instructions == "be kind"
            assert updated.session.truncation.token_limits.post_instructions == 300
            for second in range(3):
                await connection.conversation.item.create(item=image_item(timestamp_ms=1000 * second))
                kinds = [e.type for e in await until(connection, "conversation.item.done")]
                assert kinds == ["conversation.item.added", "conversation.item.done"]
            await connection.conversation.item.create(item=text_item("what is it?"))
            await until(connection, "conversation.item.done")
            await connection.response.create(response={"metadata": {"mine": "1"}, "max_output_tokens": 50})
            events = await until(connection, "response.done")
            assert [e.type for e in events] == [
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                *["response.output_text.delta"] * 3,
                "response.output_text.done",
                "response.content_part.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]
            assert events[0].response.status == "in_progress"
            assert events[0].response.metadata == {"mine": "1"}
            done = events[-1].response
            assert done.status == "completed"
            assert done.metadata["mine"] == "1"
            assert json.loads(done.metadata["evidence"])[0]["share"] == 0.5
            text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
            assert text == done.output[0].content[0].text == events[7].text
            assert done.usage.output_tokens == 3
            ids = [e.event_id for e in events]
            assert len(set(ids)) == len(ids)
        assert maker.options[0].instructions == "be kind"
        assert maker.options[0].budget_tokens == 300
        memory = maker.made[0].memory
        assert " ".join(memory).count("frames") >= 2
        assert sum(m.startswith("question") for m in memory) == 1

    run_clean(main())


def test_cancel_ends_a_running_answer_and_a_second_one_is_refused_meanwhile() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 10**9))
        async with serving(maker) as server, connected(server) as connection:
            await connection.response.cancel()
            error = (await until(connection, "error"))[-1].error
            assert (error.code, error.type) == ("response_cancel_not_active", "invalid_request_error")
            await connection.response.create(response={"instructions": "talk"})
            await until(connection, "response.output_text.delta")
            await connection.response.create(event_id="mine", response={"instructions": "talk more"})
            error = (await until(connection, "error"))[-1].error
            assert (error.code, error.event_id) == ("conversation_already_has_active_response", "mine")
            await connection.response.cancel()
            done = (await until(connection, "response.done"))[-1].response
            assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
            maker.made[0].tokens_per_answer = 2
            await connection.response.create()
            done = (await until(connection, "response.done"))[-1].response
            assert done.status == "completed"

    run_clean(main())


def test_several_answers_out_of_band_run_side_by_side_and_leave_no_item() -> None:
    async def main() -> None:
        async with serving() as server, connected(server) as connection:
            await until(connection, "session.created")
            for name in "abc":
                await connection.response.create(
                    response={
                        "conversation": "none",
                        "metadata": {"name": name},
                        "input": [text_item(f"is it {name}?")],
                    }
                )
            events: list[Any] = []
            while sum(e.type == "response.done" for e in events) < 3:
                events += await until(connection, "response.done")
            created = {e.response.id: e.response.metadata["name"] for e in events if e.type == "response.created"}
            done = {e.response.id: e.response for e in events if e.type == "response.done"}
            assert sorted(created.values()) == ["a", "b", "c"]
            assert {i: r.metadata["name"] for i, r in done.items()} == created
            assert {r.status for r in done.values()} == {"completed"}
            assert all(r.conversation_id is None for r in done.values())
            assert not any(e.type.startswith("conversation.item") for e in events)

    run_clean(main())


def test_items_are_retrieved_truncated_and_deleted() -> None:
    async def main() -> None:
        async with serving() as server, connected(server) as connection:
            await connection.conversation.item.create(item=image_item() | {"id": "frame1"})
            await until(connection, "conversation.item.done")
            await connection.conversation.item.retrieve(item_id="frame1")
            assert (await until(connection, "conversation.item.retrieved"))[-1].item.id == "frame1"
            await connection.conversation.item.delete(item_id="frame1")
            assert (await until(connection, "conversation.item.deleted"))[-1].item_id == "frame1"
            for ask in (connection.conversation.item.delete, connection.conversation.item.retrieve):
                await ask(item_id="frame1")
                assert (await until(connection, "error"))[-1].error.code == "item_not_found"
            await connection.response.create()
            item_id = (await until(connection, "response.done"))[-1].response.output[0].id
            await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=100)
            assert (await until(connection, "conversation.item.truncated"))[-1].item_id == item_id

    run_clean(main())


def test_images_of_one_message_are_small_together() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, frame_pixels=16 * 12 * 2) as server, connected(server) as connection:
            item = image_item()
            item["content"] *= 3
            await connection.conversation.item.create(item=item)
            assert (await until(connection, "error"))[-1].error.code == "image_too_large"
            item["content"] = item["content"][:2]
            await connection.conversation.item.create(item=item)
            await until(connection, "conversation.item.done")
            await connection.session.update(session={"type": "realtime"})
            stats = (await until(connection, "session.updated"))[-1].session.inf_stream["stats"]
            assert (stats["frames"]["received"], stats["frames"]["error"]) == (5, 3)

    run_clean(main())


def test_keys_are_asked_for() -> None:
    async def main() -> None:
        async with serving(keys=("another-key-of-many-characters",)) as server:
            with pytest.raises(Exception, match="401"):
                async with connected(server):
                    pass
        async with serving(keys=("another-key-of-many-characters", KEY)) as server, connected(server) as connection:
            await until(connection, "session.created")

    run_clean(main())


def test_a_session_too_many_is_told_when_to_come_back() -> None:
    async def main() -> None:
        async with serving(sessions=1) as server, connected(server) as first:
            await until(first, "session.created")
            async with connected(server) as second:
                with pytest.raises(ConnectionClosed) as closed:
                    await second.recv_bytes()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
                assert "try again in" in closed.value.rcvd.reason

    run_clean(main())


def test_a_server_that_stops_lets_the_answer_end_and_says_goodbye() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 30))
        events: list[Any] = []

        async def listen(connection: AsyncRealtimeConnection, started: Callable[[], None]) -> int:
            try:
                while True:
                    events.extend(await until(connection, "response.output_text.delta", "response.done"))
                    started()
            except ConnectionClosed as closed:
                return 0 if closed.rcvd is None else int(closed.rcvd.code)

        begun = asyncio.Event()
        async with serving(maker) as server:
            client = AsyncOpenAI(api_key=KEY, base_url=f"{server.address}/v1", max_retries=0)
            connection = await client.realtime.connect(model="lists").enter()
            await connection.response.create()
            listening = asyncio.create_task(listen(connection, begun.set))
            await begun.wait()
        assert await listening == 1001
        assert events[-1].type == "response.done"
        assert events[-1].response.status == "completed"
        await connection.close()
        await client.close()

    run_clean(main())
