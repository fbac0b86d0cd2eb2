"""Sessions that outlive their server: stopped or killed, taken up by handle, to the same answers."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.durable import ReadingMaker, away, break_off, counted, durable, gauge, saved, see, tell, until_saved, wreck
from support.realtime_clients import connected, image_item, text_item, until
from support.serving import ListMaker, picture, run_clean
from support.sockets import StreamClient, streaming

from inf_stream.server.connections.state_folder import StateFolder

DOG = {"id": "dog", "question": "a dog?", "expect": "w", "every_s": 2.0, "cooldown_s": 30.0}


async def reference(folder: Path, *times_ms: int, ask: str = "last") -> str:
    """What a session says that saw this and was never interrupted."""
    async with durable(folder) as server, streaming(server) as client:
        await see(client, *times_ms)
        return await tell(client, ask)


# ---- stopped -----------------------------------------------------------------------------------------


def test_a_stopped_server_is_followed_by_another_to_the_same_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path / "a") as server, streaming(server) as client:
            await see(client, 0, 1000)
            wanted = [await tell(client, "one")]
            await see(client, 90_000)
            wanted.append(await tell(client, "two"))
        async with durable(tmp_path / "b") as server:
            context = streaming(server)
            client = await context.__aenter__()
            hello = await client.next()
            await see(client, 0, 1000)
            told = [await tell(client, "one")]
        assert await client.closed() == (1001, "the server stops")
        await context.__aexit__(None, None, None)
        await until_saved(tmp_path / "b", ".whole")
        seq = client.heard[-1]["seq"]
        query = f"?resume={hello['handle']}&after={seq}"
        maker = ReadingMaker()
        async with durable(tmp_path / "b", maker) as server, streaming(server, query) as again:
            assert await again.next() == hello | {"seq": seq, "next_frame": 2}
            assert hello["lost_s"] == 0
            await see(again, 90_000)
            told.append(await tell(again, "two"))
            assert [m["seq"] for m in again.heard] == list(range(seq, seq + len(again.heard)))
            assert [m["number"] for m in again.heard if m["type"] == "frame"] == [2]
            await again.say("stats")
            assert (await again.until("stats"))["frames"]["accepted"] == 3
            await again.say("configure", instructions="be rude")
            assert "has begun" in (await again.until("error"))["message"]
        assert told == wanted
        asked = [line for line in maker.made[0].memory if line.startswith("question")]
        assert asked == [f"question {hello['session']}-{number}" for number in (1, 2)], "each with an id of its own"

    run_clean(main())


def test_what_was_missed_when_the_server_stopped_follows(tmp_path: Path) -> None:
    """An answer that ended while its client was away is in the replay of the next server, each message once."""

    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 40))
        async with durable(tmp_path, maker) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 0)
                await client.say("ask", id="long", text="?")
                await client.until("answer.delta")
                maker.gate.clear()
                break_off(client)
                seen = client.heard
            await away(server)
            maker.gate.set()
        async with durable(tmp_path) as server:
            async with streaming(server, f"?resume={handle}&after={seen[-1]['seq']}") as again:
                assert (await again.next())["lost_s"] == 0
                finished = await again.until("answer.finished")
                heard = seen + again.heard[1:]
                assert [m["seq"] for m in heard] == list(range(1, len(heard) + 1))
                assert "".join(m["text"] for m in heard if m["type"] == "answer.delta") == finished["text"]
                break_off(again)
            async with streaming(server, f"?resume={handle}&after=0") as third:
                assert (await third.until(lambda m: m["seq"] == 1))["handle"] == handle, "the first hello again"
                await third.until("answer.finished")

    run_clean(main())


async def stream_s(client: StreamClient) -> float:
    await client.say("stats")
    return float((await client.until("stats"))["stream_s"])


async def after_a_stop(path: Path, first: Callable[[StreamClient], Any], then: Callable[[StreamClient], Any]) -> None:
    """What a client does before a server stops, and with the next one a little later."""
    async with durable(path) as server:
        async with streaming(server) as client:
            handle = (await client.next())["handle"]
            await first(client)
            break_off(client)
        await away(server)
    await asyncio.sleep(0.5)
    query = f"?resume={handle}&after={client.heard[-1]['seq']}"
    async with durable(path) as server, streaming(server, query) as again:
        await then(again)


def test_stream_time_goes_on_by_the_wall(tmp_path: Path) -> None:
    async def first(client: StreamClient) -> None:
        await asyncio.sleep(0.3)
        before.append(await stream_s(client))

    async def then(client: StreamClient) -> None:
        assert 0.5 <= await stream_s(client) - before[0] < 30

    before: list[float] = []
    run_clean(after_a_stop(tmp_path, first, then))


def test_stream_time_goes_on_where_a_client_left_off_that_says_what_time_it_is(tmp_path: Path) -> None:
    async def first(client: StreamClient) -> None:
        await see(client, 1_000_000)

    async def then(client: StreamClient) -> None:
        await see(client, 1_000_400)
        assert client.heard[-1]["at_s"] == 1000.4, "the pause of half a second is none of the stream"

    run_clean(after_a_stop(tmp_path, first, then))


def test_nothing_is_said_that_is_not_saved_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the last state is written the client is still connected, but it is not answered any more."""
    writing, written = threading.Event(), threading.Event()
    write = StateFolder.write

    def slow(self: StateFolder, *state: Any, **more: Any) -> int:
        writing.set()
        assert written.wait(20)
        return write(self, *state, **more)

    async def say_more(client: StreamClient) -> None:
        while not writing.is_set():
            await asyncio.sleep(0.002)
        for _ in range(3):
            await client.say("stats")
        await asyncio.sleep(0.2)
        written.set()

    async def main() -> None:
        async with durable(tmp_path) as server:
            context = streaming(server)
            client = await context.__aenter__()
            handle = (await client.next())["handle"]
            await see(client, 0)
            monkeypatch.setattr(StateFolder, "write", slow)
            talking = asyncio.create_task(say_more(client))
        await talking
        assert (await client.closed())[0] == 1001
        await context.__aexit__(None, None, None)
        assert [m["type"] for m in client.heard] == ["hello", "frame"]
        last = client.heard[-1]["seq"]
        async with durable(tmp_path) as server, streaming(server, f"?resume={handle}&after={last}") as again:
            await again.next()
            await again.say("stats")
            assert (await again.until("stats"))["seq"] == last + 1

    run_clean(main())


def test_a_realtime_session_goes_on_with_its_items_and_settings(tmp_path: Path) -> None:
    async def talk(connection: Any, steps: int) -> Any:
        await connection.session.update(session={"type": "realtime", "instructions": "be kind"})
        await until(connection, "session.updated")
        for second in range(steps):
            await connection.conversation.item.create(item=image_item(timestamp_ms=1000.0 * second))
            await until(connection, "conversation.item.done")
        await connection.conversation.item.create(item=text_item("what") | {"id": "asked_later"})
        return (await until(connection, "conversation.item.done"))[-1]

    async def ask(connection: Any) -> str:
        await connection.conversation.item.create(item=text_item("is it?"))
        await connection.response.create()
        response = (await until(connection, "response.done"))[-1].response
        assert response.status == "completed"
        return str(response.output[0].content[0].text)

    async def main() -> None:
        async with durable(tmp_path / "a") as server, connected(server) as connection:
            await talk(connection, 2)
            wanted = await ask(connection)
        async with durable(tmp_path / "b") as server:
            context = connected(server)
            connection = await context.__aenter__()
            (created,) = await until(connection, "session.created")
            last = await talk(connection, 2)
        with pytest.raises(Exception, match="1001"):
            await connection.recv()
        await context.__aexit__(None, None, None)
        handle = created.session.inf_stream["handle"]
        query: Any = {"resume": handle, "after": last.event_id}
        maker = ReadingMaker()
        async with durable(tmp_path / "b", maker) as server, connected(server, extra_query=query) as again:
            (greeting,) = await until(again, "session.created")
            assert greeting.session.id == created.session.id
            assert greeting.session.instructions == "be kind"
            assert (greeting.session.inf_stream["handle"], greeting.session.inf_stream["lost_s"]) == (handle, 0)
            await again.conversation.item.retrieve(item_id="asked_later")
            retrieved = (await until(again, "conversation.item.retrieved"))[-1]
            assert retrieved.item.content[0].text == "what"
            assert int(retrieved.event_id.removeprefix("event_")) == int(last.event_id.removeprefix("event_")) + 1
            assert await ask(again) == wanted, "the text that was not asked yet is part of the question"
        assert maker.options[0].instructions == "be kind"

    run_clean(main())


# ---- killed ------------------------------------------------------------------------------------------


def test_a_killed_server_leaves_the_state_of_the_last_save_and_the_client_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path / "s") as server:
            async with streaming(server) as client:
                hello = await client.next()
                await see(client, 0, 1000)
                break_off(client)
            await until_saved(tmp_path / "s", ".whole")
            query = f"?resume={hello['handle']}&after={client.heard[-1]['seq']}"
            async with streaming(server, query) as client:
                await client.next()
                await until_saved(tmp_path / "s", ".live")
                await see(client, 2000, 3000)
                await tell(client, "forgotten")
                await asyncio.sleep(0.1)
                left = wreck(tmp_path / "s", tmp_path / "left")
        heard, seen = client.heard, client.heard[-1]["seq"]
        async with durable(left) as server:
            async with streaming(server, f"?resume={hello['handle']}&after={seen}") as again:
                greeting = await again.next()
                assert greeting["session"] == hello["session"]
                assert greeting["next_frame"] == 2, "not 4: two of them are lost"
                assert 0.1 < greeting["lost_s"] < 60
                await see(again, 2000)
                assert again.heard[-1]["number"] == 2
                assert await tell(again, "last") == await reference(tmp_path / "r", 0, 1000, 2000)
                await again.say("stats")
                stats = await again.until("stats")
                assert (stats["frames"]["accepted"], stats["lost_s"]) == (3, greeting["lost_s"])
                assert min(m["seq"] for m in again.heard[1:]) > max(m["seq"] for m in heard), "no number twice"
                break_off(again)
            await until_saved(left, ".whole")
        async with durable(left) as server:
            query = f"?resume={hello['handle']}&after={again.heard[-1]['seq']}"
            async with streaming(server, query) as third:
                assert (await third.next())["lost_s"] == greeting["lost_s"], "nothing more was lost"

    run_clean(main())


def test_a_client_that_does_not_say_what_it_has_seen_hears_no_number_twice_either(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path / "s", state_every_s=0.05) as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            await see(client, 0)
            await until_saved(tmp_path / "s", ".live")
            left = wreck(tmp_path / "s", tmp_path / "left")
            for name in "abc":
                await tell(client, name)
        async with durable(left) as server, streaming(server, f"?resume={handle}") as again:
            await again.next()
            await tell(again, "d")
            assert min(m["seq"] for m in again.heard[1:]) > client.heard[-1]["seq"]
            async with streaming(server, f"?resume={handle}&after={10**18 - 1}") as liar:
                assert (await liar.closed())[0] == 1008

    run_clean(main())


def test_nothing_is_lost_of_a_session_whose_client_was_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path / "s") as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 0)
                break_off(client)
            await until_saved(tmp_path / "s", ".whole")
            await asyncio.sleep(0.2)
            left = wreck(tmp_path / "s", tmp_path / "left")
        async with durable(left) as server, streaming(server, f"?resume={handle}&after=1") as again:
            assert (await again.next())["lost_s"] == 0
            assert (await again.next())["outcome"] == "accepted"
            assert await tell(again, "last") == await reference(tmp_path / "r", 0)

    run_clean(main())


def test_sessions_are_saved_while_their_streams_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path / "s", state_every_s=0.05) as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            for second in range(40):
                await see(client, 1000 * second)
                await asyncio.sleep(0.01)
            while await counted(server, "saved") < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            settled = await counted(server, "saved")
            assert await gauge(server, "inf_stream_saved_sessions") == 1
            assert await gauge(server, 'inf_stream_step_seconds_count{step="copy"}') >= 4
            (file,) = saved(tmp_path / "s")
            assert await gauge(server, "inf_stream_saved_bytes") == file.stat().st_size
            await asyncio.sleep(0.2)
            assert await counted(server, "saved") == settled, "nothing has changed since"
            left = wreck(tmp_path / "s", tmp_path / "left")
        async with durable(left) as server, streaming(server, f"?resume={handle}") as again:
            assert (await again.next())["next_frame"] == 40
            assert await tell(again, "last") == await reference(tmp_path / "r", *range(0, 40_000, 1000))

    run_clean(main())


def test_what_was_open_when_the_server_was_killed_comes_to_an_end(tmp_path: Path) -> None:
    """A question and a frame that wait while the state is copied are in no memory; both are told so."""

    async def main() -> None:
        maker = ReadingMaker()
        async with durable(tmp_path / "s", maker, state_every_s=0.3) as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            maker.gate.clear()
            for _ in range(2):
                await client.frame(picture())
            await client.say("ask", id="mine", text="?", in_order=True)
            await client.say("watch", **DOG)
            await client.until("watching")
            await asyncio.sleep(0.5)
            maker.gate.set()
            await until_saved(tmp_path / "s", ".live")
            left = wreck(tmp_path / "s", tmp_path / "left")
            assert (await client.until("answer.finished"))["reason"] == "stop"
        async with durable(left) as server, streaming(server, f"?resume={handle}") as again:
            assert (await again.next())["next_frame"] == 2
            assert await again.outcomes(1) == {1: ("dropped", "lost")}
            lost = await again.until("warning")
            assert "the server was started again; ask again" in lost["message"]
            finished = await again.until("answer.finished")
            assert (finished["id"], finished["reason"], finished["text"]) == ("mine", "failed", "")
            assert await tell(again, "mine"), "the id is free again"
            await again.say("stats")
            frames = (await again.until("stats"))["frames"]
            assert (frames["received"], frames["accepted"], frames["dropped"], frames["waiting"]) == (2, 1, 1, 0)

    run_clean(main())


def test_a_realtime_response_that_was_lost_is_done_with_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        maker = ReadingMaker()
        async with durable(tmp_path / "s", maker, state_every_s=0.3) as server, connected(server) as connection:
            handle = (await until(connection, "session.created"))[-1].session.inf_stream["handle"]
            maker.gate.clear()
            await connection.conversation.item.create(item=image_item())
            await connection.response.create(response={"metadata": {"mine": "yes"}})
            created = (await until(connection, "response.created"))[-1]
            await asyncio.sleep(0.5)
            maker.gate.set()
            await until_saved(tmp_path / "s", ".live")
            left = wreck(tmp_path / "s", tmp_path / "left")
            await until(connection, "response.done")
        async with durable(left) as server, connected(server, extra_query={"resume": handle}) as again:
            done = (await until(again, "response.done"))[-1].response
            assert (done.id, done.status, done.metadata["mine"]) == (created.response.id, "failed", "yes")
            assert "ask again" in done.status_details.error.message
            await again.response.create()
            assert (await until(again, "response.done"))[-1].response.status == "completed"

    run_clean(main())


# ---- watches -----------------------------------------------------------------------------------------


def test_a_restored_watch_goes_on_and_remembers_its_cool_down(tmp_path: Path) -> None:
    """The answers of these engines begin with w, so that each look would be reported but for the cool-down."""

    async def main() -> None:
        async with durable(tmp_path) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await client.say("watch", **(DOG | {"expect": ""}))
                await client.until("watching")
                await see(client, 1000)
                assert (await client.until("alert"))["at_s"] == 1
                break_off(client)
            await away(server)
        async with durable(tmp_path) as server, streaming(server, f"?resume={handle}&after=1") as again:
            for time_ms in (20_000, 30_500, 62_000):
                await see(again, time_ms)
                await tell(again, f"at {time_ms}")
            alerts = [m["at_s"] for m in again.heard if m["type"] == "alert"]
            assert alerts == [1, 62], "the first was told before; the cool-down lasts from then on"
            await again.say("unwatch", id="dog")
            assert await again.until("unwatched")

    run_clean(main())
