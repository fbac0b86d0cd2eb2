"""Sessions on a real engine that outlive their server: cache, archive, conversation and random numbers."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from support.durable import away, break_off, durable, saved, see, tell, until_saved, wreck
from support.serving import run_clean, server_settings
from support.sockets import StreamClient, streaming
from support.tiny_models import tiny_weights

from inf_stream.base.config import AnswerSettings, ArchiveSettings, CacheSettings, ModelSettings, Settings
from inf_stream.base.state import read_state
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.server.sessions.engines import SharedModel

ARCHIVE = ArchiveSettings(host_mib=1, recall_tokens=32)
FIRST, THEN = range(1000, 25_000, 1000), range(90_000, 102_000, 1000)


def settings_of(archive: ArchiveSettings = ARCHIVE, **cache: Any) -> Settings:
    return dataclasses.replace(
        server_settings(drain_s=5.0, state_every_s=1e6),
        model=ModelSettings(name="tiny"),
        cache=CacheSettings(**{"budget_tokens": 128, "chunk_tokens": 32} | cache),
        answer=AnswerSettings(max_tokens=8, temperature=0.8, seed=3),
        archive=archive,
    )


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return tiny_weights("smolvlm")


async def begin(client: StreamClient, told: list[str]) -> None:
    await client.say("configure", instructions="be kind", budget_tokens=96)
    await client.say("watch", id="all", question="what now?", expect="", every_s=4, cooldown_s=0)
    await client.until("watching")
    await see(client, *FIRST)
    told.append(await tell(client, "one"))


async def go_on(client: StreamClient, told: list[str]) -> None:
    await see(client, *THEN)
    told += [await tell(client, "two"), await tell(client, "three")]


def alerts(*clients: StreamClient) -> list[tuple[float, str]]:
    return [(m["at_s"], m["text"]) for client in clients for m in client.heard if m["type"] == "alert"]


@pytest.mark.parametrize("archive", [ArchiveSettings(), ARCHIVE], ids=["cache", "archive"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_answers_and_alerts_are_those_of_a_session_that_was_never_interrupted(
    tmp_path: Path, weights: LoadedWeights, archive: ArchiveSettings, end: str
) -> None:
    settings = settings_of(archive)

    async def main() -> None:
        wanted: list[str] = []
        async with (
            durable(tmp_path / "a", SharedModel(settings, weights), settings) as server,
            streaming(server) as whole,
        ):
            await whole.next()
            await begin(whole, wanted)
            await go_on(whole, wanted)
        told: list[str] = []
        async with durable(tmp_path / "b", SharedModel(settings, weights), settings) as server:
            async with streaming(server) as first:
                handle = (await first.next())["handle"]
                await begin(first, told)
                break_off(first)
            await away(server)
            await until_saved(tmp_path / "b", ".whole")
            left = wreck(tmp_path / "b", tmp_path / "left")
        left = left if end == "killed" else tmp_path / "b"
        query = f"?resume={handle}&after={first.heard[-1]['seq']}"
        async with durable(left, SharedModel(settings, weights), settings) as server, streaming(server, query) as again:
            assert (await again.next())["lost_s"] == 0
            await again.say("stats")
            assert (await again.until("stats"))["memory"] is not None, "the page shows it at once"
            await go_on(again, told)
        assert told == wanted
        assert alerts(first, again) == alerts(whole)
        assert len(alerts(again)) >= 3
        assert len(set(told)) == 3, "different questions are answered differently"
        stats = next(m for m in reversed(again.heard) if m["type"] == "answer.finished")["stats"]
        twin = next(m for m in reversed(whole.heard) if m["type"] == "answer.finished")["stats"]
        same = ("tokens_seen", "tokens_kept", "budget_tokens", "evictions", "frames", "answers")
        assert [stats[name] for name in same] == [twin[name] for name in same]
        assert (stats["budget_tokens"], stats["evictions"] > 2) == (96, True)
        if archive.host_mib:
            assert stats["archive_blocks"] == twin["archive_blocks"] > 0

    run_clean(main(), limit_s=200)


def test_another_model_or_other_settings_take_no_session_over(tmp_path: Path, weights: LoadedWeights) -> None:
    async def main() -> None:
        settings = settings_of()
        async with durable(tmp_path, SharedModel(settings, weights), settings) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await see(client, 1000, 2000)
                break_off(client)
            await away(server)
        (path,) = saved(tmp_path)
        assert {"engine.cache.raw_keys", "engine.cache.archive.usual.mean"} & read_state(path).tensors.keys()
        others = [
            (settings, tiny_weights("smolvlm", seed=1), "is one of another model"),
            (settings_of(chunk_tokens=48), weights, "has chunk_tokens 32, this one 48"),
            (settings_of(budget_tokens=64), weights, "has budget_tokens 128, this one 64"),
            (settings_of(ArchiveSettings()), weights, "_mib [01], this one None"),
        ]
        query = f"?resume={handle}&after=1"
        for other, of, why in others:
            async with durable(tmp_path, SharedModel(other, of), other) as server, streaming(server, query) as client:
                code, reason = await client.closed()
                assert code == 1008
                assert re.search(why, reason)
        own = SharedModel(settings, weights)
        async with durable(tmp_path, own, settings) as server, streaming(server, query) as client:
            assert (await client.next())["next_frame"] == 2, "its own model takes it up again"

    run_clean(main())
