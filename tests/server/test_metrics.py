"""`/metrics`, read by the parser of Prometheus' own client."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch
from support.metrics import Scrape, scraped
from support.plain_requests import get
from support.realtime_clients import KEY, connected, image_item, serving, text_item, until
from support.serving import ListMaker, picture, run_clean, server_settings
from support.sockets import streaming
from support.tiny_models import tiny_weights

from inf_stream.base.config import AnswerSettings, ArchiveSettings, CacheSettings
from inf_stream.models.weights.placement import CudaFacts, machine_facts
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.sessions import engines as module
from inf_stream.server.sessions.engines import SharedModel
from inf_stream.server.web.access import Access
from inf_stream.server.web.metrics import Metrics

GPU = CudaFacts("gpu", 1000, 300, (9, 0))
COUNTS = ("frames", "questions", "steps")


def test_frames_questions_and_answers_are_counted() -> None:
    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            await client.frame(picture())
            await client.frame(b"no image")
            await client.outcomes(2)
            await client.say("ask", id="a", text="?")
            await client.until("answer.finished")
            seen = await scraped(server)
            assert seen["inf_stream_sessions"] == seen["inf_stream_sessions_opened_total"] == 1
            assert seen["inf_stream_sessions_most"] == 4
            assert seen["inf_stream_connections"] == 2
            assert seen['inf_stream_frames_total{outcome="accepted",reason=""}'] == 1
            assert seen['inf_stream_frames_total{outcome="error",reason="invalid_image"}'] == 1
            assert seen['inf_stream_answers_total{reason="stop"}'] == 1
            assert seen["inf_stream_answer_tokens_total"] == 3
            assert seen['inf_stream_step_seconds_count{step="token"}'] == 3
            assert seen['inf_stream_step_seconds_count{step="frames"}'] == 1
            assert seen["inf_stream_first_token_seconds_count"] == 1
            assert 0 < seen["inf_stream_first_token_seconds_sum"] < 20
            assert seen["inf_stream_answer_tokens_per_second_count"] == 1
            assert seen["inf_stream_answer_tokens_per_second_sum"] > 0
            assert seen["inf_stream_cache_promised_bytes"] == 100
            assert [seen[f"inf_stream_{what}_waiting"] for what in COUNTS] == [0, 0, 0]
            assert seen["process_resident_memory_bytes"] > 0
            assert not [name for name in seen.names if name.endswith("_created")]

    run_clean(main())


def test_what_waits_is_seen_while_it_waits() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server, streaming(server) as one, streaming(server) as two:
            maker.gate.clear()
            for client in (one, two):
                for _ in range(3):
                    await client.frame(picture())
                await client.say("ask", id="a", text="?")
            while (seen := await scraped(server))["inf_stream_questions_waiting"] < 2:
                await asyncio.sleep(0.005)
            assert seen["inf_stream_frames_waiting"] == 6
            assert seen["inf_stream_steps_waiting"] == 1, "one session's step waits behind that of the other"
            maker.gate.set()
            for client in (one, two):
                await client.until("answer.finished")

    run_clean(main())


@asynccontextmanager
async def serving_tiny() -> AsyncIterator[RunningServer]:
    """A real model, tiny, with an archive."""
    settings = dataclasses.replace(
        server_settings(drain_s=5.0),
        cache=CacheSettings(budget_tokens=128, chunk_tokens=32),
        archive=ArchiveSettings(host_mib=1, recall_tokens=32, merge_above=2.0),
        answer=AnswerSettings(max_tokens=8),
    )
    metrics = Metrics()
    maker = SharedModel(settings, tiny_weights("smolvlm"), metrics.timed)
    async with running_server(maker, settings, Access(()), metrics=metrics) as server:
        yield server


async def live(server: RunningServer, frames: int) -> Scrape:
    """One session of so many frames and a question; what is seen at its end."""
    async with connected(server) as connection:
        for second in range(frames):
            await connection.conversation.item.create(item=image_item(timestamp_ms=1000 * second))
        await connection.conversation.item.create(item=text_item("what?"))
        await connection.response.create()
        await until(connection, "response.done")
        return await scraped(server)


def test_a_real_model_tells_its_memory_and_its_times_and_no_session_takes_its_counts_along() -> None:
    async def main() -> None:
        async with serving_tiny() as server:
            before: Scrape | None = None
            for _ in range(3):
                during = await live(server, frames=30)
                assert during["inf_stream_sessions"] == 1
                assert 0 < during["inf_stream_cache_tokens"] <= 128 + 64 + 32 + 32
                maker = server.hub.maker
                assert during["inf_stream_cache_bytes"] == maker.session_bytes - (1 << 20)
                assert during["inf_stream_cache_promised_bytes"] == maker.session_bytes
                assert 0 < during["inf_stream_archive_bytes"] <= 1 << 20
                for work in ("encode", "chunk", "decode"):
                    assert during[f'inf_stream_model_seconds_count{{work="{work}"}}'] > 0
                    assert during[f'inf_stream_model_seconds_sum{{work="{work}"}}'] > 0
                while server.hub.sessions:
                    await asyncio.sleep(0.005)
                after = await scraped(server)
                for name in ("sessions", "cache_tokens", "cache_bytes", "cache_promised_bytes", "archive_bytes"):
                    assert after[f"inf_stream_{name}"] == 0, name
                for earlier in (before, during):
                    for key, value in ({} if earlier is None else earlier.counted()).items():
                        assert after.counted()[key] >= value, key
                if before is not None:
                    assert after.keys() == before.keys(), "however many sessions come, there are no more series"
                    more = "inf_stream_sessions_opened_total", "inf_stream_answer_tokens_total"
                    assert all(after[key] > before[key] for key in more)
                before = after

    run_clean(main())


def test_who_is_refused_and_how_connections_end() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, sessions=1, grace_s=0.0, message_bytes=2000) as server:
            fresh = await scraped(server)
            reasons = [
                f'inf_stream_sessions_refused_total{{reason="{why}"}}' for why in ("sessions", "memory", "stopping")
            ]
            assert [fresh[reason] for reason in reasons] == [0, 0, 0]
            async with streaming(server) as first:
                await first.next()
                async with streaming(server) as second:
                    assert (await second.closed())[0] == 1013
                body = json.dumps({"messages": [{"role": "user", "content": "?"}]})
                assert (await get(server, "/v1/chat/completions", "POST", data=body))[0] == 429
                await first.frame(b"x" * 3000)
                assert (await first.closed())[0] == 1009
            while server.hub.sessions:
                await asyncio.sleep(0.005)
            for code in (1000, 3333, 4444):
                async with streaming(server) as client:
                    await client.next()
                    await client.socket.close(code)
                while server.hub.sessions:
                    await asyncio.sleep(0.005)
            maker.free = 0
            assert (await get(server, "/v1/chat/completions", "POST", data=body))[0] == 429
            server.hub.is_draining = True
            assert (await get(server, "/v1/chat/completions", "POST", data=body))[0] == 429
            await get(server, "/nothing")
            seen = await scraped(server)
            assert [seen[reason] for reason in reasons] == [2, 1, 1]
            closed = {
                code: seen[f'inf_stream_connections_closed_total{{code="{code}"}}'] for code in (1009, 1013, 1000)
            }
            assert closed == {1009: 1, 1013: 1, 1000: 1}
            assert seen['inf_stream_connections_closed_total{code="other"}'] == 2, "codes that clients make up"
            assert seen['inf_stream_requests_refused_total{status="429"}'] == 3
            assert seen['inf_stream_requests_refused_total{status="404"}'] == 1
            assert seen["inf_stream_sessions_opened_total"] == 4

    run_clean(main())


def test_a_gpu_is_shown_where_the_model_runs_on_one() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server:
            assert not [name for name in (await scraped(server)).names if "gpu" in name]
            maker.gpu_now = GPU
            seen = await scraped(server)
            assert seen['inf_stream_gpu_memory_bytes{state="used"}'] == 700
            assert seen['inf_stream_gpu_memory_bytes{state="free"}'] == 300

    run_clean(main())


def test_the_gpu_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SharedModel(server_settings(), tiny_weights("smolvlm"))
    assert model.gpu() is None
    other = dataclasses.replace(GPU, free_bytes=1)
    facts = dataclasses.replace(machine_facts(), cuda=(other, GPU))
    monkeypatch.setattr(module, "machine_facts", lambda: facts)
    assert model.gpu() is None, "a GPU that the model does not use"
    model._device = torch.device("cuda", 1)
    assert model.gpu() == GPU


def test_keys_are_asked_for() -> None:
    async def main() -> None:
        async with serving(keys=(KEY,)) as server:
            assert (await get(server, "/metrics"))[0] == 401
            assert (await get(server, "/metrics", headers={"Authorization": f"Bearer {KEY}"}))[0] == 200

    run_clean(main())
