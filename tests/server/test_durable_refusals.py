"""Saved sessions that are refused, end, expire, or cannot be saved; and all the others, which do not notice."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.durable import ReadingMaker, away, break_off, counted, durable, saved, see, tell, until_saved
from support.realtime_clients import connected, until
from support.serving import run_clean
from support.session_engine import ListEngine
from support.sockets import streaming

from inf_stream.base.errors import StateError
from inf_stream.base.state import State, read_state, write_state
from inf_stream.server.connections import state_folder as module
from inf_stream.server.connections.session_keeper import SessionKeeper
from inf_stream.server.protocols.stream import StreamAdapter

NO_SESSION = (1008, "no session has this handle, or it has ended; open a new one")


async def left_behind(folder: Path, *times_ms: int) -> str:
    """Have a session saved by a server that has stopped; returns its handle."""
    async with durable(folder) as server:
        async with streaming(server) as client:
            handle = (await client.next())["handle"]
            await see(client, *times_ms)
            break_off(client)
        await away(server)
    assert len(saved(folder)) == 1
    return str(handle)


def changed(change: Callable[[State], None]) -> Callable[[Path], None]:
    """What the file would be if something else had been saved."""

    def write(path: Path) -> None:
        state = read_state(path)
        change(state)
        write_state(state, path)

    return write


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def of_tomorrow(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"9"', 1))


def of_somebody_else(path: Path) -> None:
    path.write_bytes(b"<html>" * 100)


def of_ask(path: Path) -> None:
    write_state(State.of({"engine": State()}, settings={}, handle=path.stem), path)


def forget_a_turn(state: State) -> None:
    state.facts["adapter"]["client_ids"] = ["not", "a", "mapping"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut_short, "is damaged"),
        (emptied, "is damaged"),
        (one_bit, "is damaged: its checksum does not match its content"),
        (of_somebody_else, "is damaged"),
        (of_tomorrow, "is of version 9; this program reads version 1"),
        (of_ask, "is of another version of the server, or of none"),
        (changed(lambda s: s.facts.update(layout=2)), "is of another version of the server"),
        (changed(lambda s: s.facts.update(handle="0" * 64)), "is of another handle"),
        (changed(forget_a_turn), "has no dict called 'client_ids'"),
        (changed(lambda s: s.facts["session"]["frames"].update(unsettled=[[1]])), "is not one of this server"),
        (changed(lambda s: s.facts["messages"].update(last=0)), "messages that were never sent so"),
        (changed(lambda s: s.facts["engine"].update(memory="?")), "no list called 'memory'"),
        (changed(lambda s: s.facts["watches"].update(standing=[{}] * 9)), "at most 8 may be set"),
        (changed(lambda s: s.facts["session"]["options"].update(budget_tokens=5000)), "16 to 1000 are allowed"),
        (changed(lambda s: s.tensors.update({"engine.letters": torch.zeros(1)})), "as 'letters'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_reason_and_never_half(
    tmp_path: Path, damage: Callable[[Path], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(self: ListEngine, state: State) -> None:
        memory = state.fact("memory", list)
        state.tensor("letters", (len("".join(memory)),), torch.uint8)
        self.memory = memory

    monkeypatch.setattr(ListEngine, "restore", restore)

    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        (path,) = saved(tmp_path)
        damage(path)
        found = path.read_bytes()
        async with durable(tmp_path, sessions=1) as server:
            for _ in range(2):
                async with streaming(server, f"?resume={handle}&after=1") as client:
                    code, reason = await client.closed()
                    assert (code, client.heard) == (1008, [])
                    assert why in reason
                    assert str(tmp_path) not in reason
                while server.hub.sessions:
                    await asyncio.sleep(0.002)
            assert await counted(server, "refused") == 2
            assert path.read_bytes() == found
            async with streaming(server) as client:
                await client.next()
                assert await tell(client, "something else"), "the server and the only place are free"

    run_clean(main())


def test_a_handle_is_nowhere_in_the_folder_and_another_finds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path) as server:
            async with streaming(server) as client, connected(server) as realtime:
                hello = await client.next()
                (created,) = await until(realtime, "session.created")
                await realtime.session.update(session={"type": "realtime"})
                await until(realtime, "session.updated")
                realtime._connection.transport.abort()
                break_off(client)
            await away(server)
        files = saved(tmp_path)
        assert len(files) == 2
        handles = (hello["handle"], created.session.inf_stream["handle"])
        for file in tmp_path.iterdir():
            assert not any(handle in file.name or handle.encode() in file.read_bytes() for handle in handles)
        for file in files:
            assert file.stat().st_mode & 0o777 == 0o600
        assert tmp_path.stat().st_mode & 0o077 in (0, 0o055)
        async with durable(tmp_path) as server:
            for wrong in (files[0].stem, files[0].name, hello["handle"][:-1], hello["handle"].swapcase(), "", "%ff%00"):
                async with streaming(server, f"?resume={wrong}&after=1") as client:
                    assert await client.closed() == NO_SESSION

    run_clean(main())


def test_a_session_goes_on_in_its_own_protocol_only(tmp_path: Path) -> None:
    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        query: Any = {"resume": handle, "after": "1"}
        async with durable(tmp_path) as server:
            for _ in range(2):  # saved, and then open
                async with connected(server, extra_query=query) as wrong:
                    with pytest.raises(Exception, match=r"1008.*speaks 'inf-stream'"):
                        await wrong.recv()
                async with streaming(server, f"?resume={handle}&after=1") as right:
                    await right.next()
                    break_off(right)

    run_clean(main())


def test_without_a_folder_another_protocol_is_refused_too_and_nothing_is_written(tmp_path: Path) -> None:
    from support.realtime_clients import serving

    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            async with connected(server, extra_query={"resume": handle}) as wrong:
                with pytest.raises(Exception, match=r"1008.*speaks 'inf-stream'"):
                    await wrong.recv()

    run_clean(main())


# ---- ends --------------------------------------------------------------------------------------------


def test_sessions_that_end_for_good_are_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with durable(tmp_path, state_every_s=0.05, idle_timeout_s=1.0) as server:
            async with streaming(server) as leaving:
                handle = (await leaving.next())["handle"]
                await see(leaving, 0)
                await until_saved(tmp_path, ".live")
            await until_saved(tmp_path)
            async with streaming(server, f"?resume={handle}&after=1") as late:
                assert await late.closed() == NO_SESSION
            async with streaming(server) as silent:
                await silent.next()
                await until_saved(tmp_path, ".live")
                assert (await silent.closed())[0] == 1000
            await until_saved(tmp_path)

    run_clean(main())


@pytest.mark.parametrize("grace_s", [0.0, 0.3])
def test_a_lost_client_finds_its_session_after_the_grace_too(tmp_path: Path, grace_s: float) -> None:
    async def main() -> None:
        async with durable(tmp_path / "s", sessions=1, grace_s=grace_s) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 0)
                break_off(client)
            while server.hub.sessions:
                await asyncio.sleep(0.002)
            await until_saved(tmp_path / "s", ".whole")
            async with streaming(server, f"?resume={handle}&after=1") as again:
                assert (await again.next())["lost_s"] == 0
                assert await tell(again, "last")
                async with streaming(server) as other:
                    assert (await other.closed())[0] == 1013, "the only place is taken"
        assert await left_behind(tmp_path / "t", 0)

    run_clean(main())


def test_a_client_that_comes_back_while_its_session_is_saved_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with durable(tmp_path, grace_s=0.0) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 0)
                waiting, going_on = asyncio.Event(), asyncio.Event()
                ended = SessionKeeper.ended

                async def slow(self: SessionKeeper, channel: Any) -> None:
                    waiting.set()
                    await going_on.wait()
                    await ended(self, channel)

                monkeypatch.setattr(SessionKeeper, "ended", slow)
                break_off(client)
            await waiting.wait()
            async with streaming(server, f"?resume={handle}&after=1") as again:
                await asyncio.sleep(0.1)
                going_on.set()
                assert (await again.next())["next_frame"] == 1

    run_clean(main())


def test_there_must_be_a_place_for_who_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        async with durable(tmp_path, sessions=1) as server:
            async with streaming(server) as other:
                await other.next()
                async with streaming(server, f"?resume={handle}&after=1") as again:
                    code, reason = await again.closed()
                    assert (code, "try again in" in reason) == (1013, True)
            while server.hub.sessions:
                await asyncio.sleep(0.002)
            async with streaming(server, f"?resume={handle}&after=1") as again:
                assert (await again.next())["next_frame"] == 1

    run_clean(main())


def test_two_that_come_back_with_one_handle_get_one_session(tmp_path: Path) -> None:
    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        maker = ReadingMaker()
        async with (
            durable(tmp_path, maker) as server,
            streaming(server, f"?resume={handle}&after=1") as one,
            streaming(server, f"?resume={handle}&after=1") as two,
        ):
            heard = await asyncio.gather(one.next(), two.next(), return_exceptions=True)
            assert len(server.hub.sessions) == len(maker.made) == 1
            assert any(isinstance(m, dict) and m["type"] == "hello" for m in heard)

    run_clean(main())


def test_a_stopping_server_takes_nobody_back_but_says_when(tmp_path: Path) -> None:
    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        async with durable(tmp_path) as server:
            server.hub.is_draining = True
            async with streaming(server, f"?resume={handle}&after=1") as again:
                assert (await again.closed())[0] == 1013

    run_clean(main())


# ---- what goes wrong -----------------------------------------------------------------------------------


def test_a_save_that_fails_is_counted_and_tried_again_and_nothing_else_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise StateError("session cannot be saved: No space left on device")

    async def main() -> None:
        async with durable(tmp_path, state_every_s=0.05) as server, streaming(server) as client:
            with monkeypatch.context() as patched:
                patched.setattr(module, "write_state", full)
                await client.next()
                await see(client, 0, 1000)
                while await counted(server, "failed") < 2:
                    await asyncio.sleep(0.01)
                assert await tell(client, "still there")
            await until_saved(tmp_path, ".live")
        failures = [one for one in caplog.records if one.getMessage() == "session not saved"]
        assert {vars(one)["fields"]["reason"] for one in failures} == {
            "session cannot be saved: No space left on device"
        }
        assert "Traceback" not in caplog.text

    run_clean(main())


def test_a_bug_in_what_a_protocol_keeps_ends_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with durable(tmp_path, state_every_s=0.05) as server, streaming(server) as client:
            monkeypatch.setattr(StreamAdapter, "state", lambda self: 1 // 0)
            await client.next()
            while await counted(server, "failed") < 2:
                await asyncio.sleep(0.01)
            assert await tell(client, "still there")
        assert "ZeroDivisionError" in caplog.text

    run_clean(main())


def test_a_session_that_broke_is_taken_up_where_it_was_saved(tmp_path: Path) -> None:
    async def main() -> None:
        maker = ReadingMaker()
        async with durable(tmp_path, maker, state_every_s=0.05) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 0)
                await until_saved(tmp_path, ".live")
                engine = maker.made[0]
                engine.failures.update(dict.fromkeys(range(1000), ZeroDivisionError("a bug")))
                await client.say("ask", id="a", text="?")
                assert (await client.closed())[0] == 1011
            async with streaming(server, f"?resume={handle}&after={client.heard[-1]['seq']}") as again:
                assert (await again.next())["next_frame"] == 1
                assert await tell(again, "works again")

    run_clean(main())


def test_a_handle_expires(tmp_path: Path) -> None:
    async def main() -> None:
        handle = await left_behind(tmp_path, 0)
        (path,) = saved(tmp_path)
        async with durable(tmp_path) as server:
            os.utime(path, (time.time() - 1001,) * 2)
            async with streaming(server, f"?resume={handle}&after=1") as late:
                assert await late.closed() == NO_SESSION
        async with durable(tmp_path):
            assert not saved(tmp_path), "removed at the next start"

    run_clean(main())
