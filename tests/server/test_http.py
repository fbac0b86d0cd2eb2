"""Plain requests: health, models, sessions, and chat completions by the official client."""

import asyncio
import json
from typing import Any

import openai
import pytest
from support.plain_requests import get
from support.realtime_clients import KEY, client_of, data_uri, serving
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming

from inf_stream.base.errors import BudgetError


def user(*parts: Any) -> Any:
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    return {"role": "user", "content": content}


IMAGE = {"type": "image_url", "image_url": {"url": data_uri()}}


def test_health_needs_no_key_and_everything_else_does() -> None:
    async def main() -> None:
        async with serving(keys=(KEY,)) as server:
            assert (await get(server, "/health"))[:2] == (200, '{"status": "ok"}')
            for path in ("/metrics", "/v1/models", "/v1/sessions", "/v1/realtime", "/v1/stream", "/nothing"):
                status, text, headers = await get(server, path)
                assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key"), path
                assert headers["WWW-Authenticate"] == "Bearer"
            key = {"Authorization": f"Bearer {KEY}"}
            assert (await get(server, "/v1/models", headers=key))[0] == 200
            assert (await get(server, "/nothing", headers=key))[0] == 404
            assert (await get(server, "/v1/stream", headers=key))[0] == 426
            assert (await get(server, "/v1/models", "DELETE", headers=key))[0] == 405
            server.hub.is_draining = True
            assert (await get(server, "/health"))[0] == 503

    run_clean(main())


def test_models_are_listed_by_the_official_client() -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            assert [m.id async for m in client.models.list()] == ["lists"]
            assert (await client.models.retrieve("lists")).owned_by == "inf-stream"
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("gpt")

    run_clean(main())


def test_the_operator_sees_the_sessions() -> None:
    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            await client.frame(picture())
            await client.frame(b"no image")
            await client.outcomes(2)
            await client.say("ask", id="a", text="?")
            await client.until("answer.finished")
            sessions = json.loads((await get(server, "/v1/sessions"))[1])
            (session,) = sessions["data"]
            assert (session["connected"], session["frames"]["accepted"], session["frames"]["error"]) == (True, 1, 1)
            assert "handle" not in str(sessions), "whoever lists sessions cannot take them over"

    run_clean(main())


def test_a_chat_completion_whole_and_in_pieces() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server, client_of(server) as client:
            messages: Any = [
                {"role": "system", "content": "be kind"},
                user("earlier"),
                {"role": "assistant", "content": "indeed"},
                user(IMAGE, IMAGE, "what is it?"),
            ]
            whole = await client.chat.completions.create(model="any", messages=messages, max_tokens=7)
            text = whole.choices[0].message.content
            assert text
            assert whole.choices[0].finish_reason == "stop"
            assert whole.usage is not None
            assert whole.usage.completion_tokens == 3
            stream = await client.chat.completions.create(
                model="any", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
            assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 3
            first, second = maker.made
            kept = [[m for m in one.memory if not m.startswith("question")] for one in (first, second)]
            assert kept[0] == kept[1], "the same request is read the same way"
            assert first.memory[0].startswith("text earlier")
            assert sum(m.count("frames") for m in first.memory) >= 1
            assert [o.instructions for o in maker.options] == ["be kind"] * 2
            while server.hub.sessions:
                await asyncio.sleep(0.005)

    run_clean(main())


def test_more_images_than_the_queue_holds_are_all_read() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, queue_frames=2) as server, client_of(server) as client:
            await client.chat.completions.create(model="any", messages=[user(*[IMAGE] * 9, "?")])
            read = [n for m in maker.made[0].memory if m.startswith("frames") for n in m.split()[1:]]
            assert read == [str(n) for n in range(9)]

    run_clean(main())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": "http://a.example/x.png"}})]}, "image_url"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": data_uri(b"nothing")}})]}, "image_url"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": 5}})]}, "image_url"),
        ({"messages": [user("x" * 20_000)]}, "messages[0].content[0].text"),
        ({"messages": [user("x" * 10_000), user("x" * 10_000)]}, "messages"),
        ({"messages": [user("x")], "n": 2}, "n"),
        ({"messages": [user("x")], "stream": "yes"}, "stream"),
        ({"messages": [user("x")], "max_tokens": -1}, "max_tokens"),
        ({"messages": [user("x")], "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [user("x")], "response_format": {"type": "json_object"}}, "response_format.type"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_field(body: Any, param: str) -> None:
    async def main() -> None:
        async with serving() as server:
            for stream in (False, True):
                wanted = {"stream": stream} | body
                status, text, _ = await get(server, "/v1/chat/completions", "POST", data=json.dumps(wanted))
                error = json.loads(text)["error"]
                assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error"), text
            while server.hub.sessions:
                await asyncio.sleep(0.005)

    run_clean(main())


def test_a_body_that_is_no_json_or_too_long_or_too_slow() -> None:
    async def main() -> None:
        async with serving(message_bytes=2000) as server:
            post = "/v1/chat/completions"
            assert (await get(server, post, "POST", data=b"{"))[0] == 400
            assert (await get(server, post, "POST", data=b"\xff\xfe"))[0] == 400
            assert (await get(server, post, "POST", data=b"x" * 3000))[0] == 413
        async with serving(header_timeout_s=0.3) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in await asyncio.wait_for(reader.readline(), 20)
            writer.close()

    run_clean(main())


def test_images_of_one_request_are_small_together() -> None:
    async def main() -> None:
        async with serving(frame_pixels=16 * 12 * 2) as server, client_of(server) as client:
            with pytest.raises(openai.BadRequestError, match="more than 384 pixels together"):
                await client.chat.completions.create(model="any", messages=[user(*[IMAGE] * 3, "?")])

    run_clean(main())


def test_too_many_sessions_are_told_when_to_come_back() -> None:
    async def main() -> None:
        async with serving(sessions=1) as server, client_of(server) as client, streaming(server) as first:
            await first.next()
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(model="any", messages=[user("?")])
            assert int(refused.value.response.headers["Retry-After"]) >= 1

    run_clean(main())


def test_an_answer_that_fails_is_an_error() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: BudgetError("too long a question")}))
        async with serving(maker) as server, client_of(server) as client:
            with pytest.raises(openai.InternalServerError, match="too long a question"):
                await client.chat.completions.create(model="any", messages=[user("?")])
            stream = await client.chat.completions.create(model="any", messages=[user("?")], stream=True)
            with pytest.raises(openai.APIError, match="too long a question"):
                async for _ in stream:
                    pass

    run_clean(main())


def test_a_client_that_leaves_ends_its_answer() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 10**9))
        async with serving(maker) as server, client_of(server) as client:
            stream = await client.chat.completions.create(model="any", messages=[user("?")], stream=True)
            async for _ in stream:
                break
            await stream.close()
            while server.hub.sessions:
                await asyncio.sleep(0.005)

    run_clean(main())


def test_what_breaks_inside_stays_inside() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server:
            maker.free_bytes = lambda: 1 // 0  # type: ignore[method-assign, assignment]
            body = json.dumps({"messages": [user("?")]})
            status, text, _ = await get(server, "/v1/chat/completions", "POST", data=body)
            assert (status, json.loads(text)["error"]["code"]) == (500, "server_error")
            assert "division" not in text
            assert (await get(server, "/health"))[0] == 200

    run_clean(main())


def test_web_pages_of_strangers_are_kept_out() -> None:
    async def main() -> None:
        async with serving() as server:
            for origin, status in (
                ("https://evil.example", 403),
                (server.address, 200),
                ("null", 403),
            ):
                assert (await get(server, "/v1/models", headers={"Origin": origin}))[0] == status, origin
            rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
            assert (await get(server, "/v1/models", headers=rebound))[0] == 403
            with pytest.raises(Exception, match="403"):
                async with streaming(server, origin="https://evil.example"):  # type: ignore[arg-type]
                    pass

    run_clean(main())
