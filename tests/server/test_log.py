"""What the server's log says, and what it never says."""

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from support.command_line import save_tiny
from support.gemini_clients import serving_securely
from support.plain_requests import get
from support.realtime_clients import image_item, serving, text_item, until
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming

from inf_stream.server.log import JsonFormatter, TextFormatter, fields

KEY, WRONG_KEY = "a-key-that-nobody-may-see", "a-key-that-is-not-the-right-one"
SECRET = "zebra-in-the-kitchen"


def record(message: str, error: BaseException | None = None, **values: Any) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    one = logging.LogRecord("inf_stream.part", logging.INFO, "part.py", 7, message, (), exc_info)
    one.__dict__.update(fields(**values))
    return one


def test_a_line_for_people() -> None:
    one = record("session closed", session="sess_1", code=1000, reason='he said "bye"\nlevel=ERROR', ttft_s=None)
    line = TextFormatter().format(one)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} level=INFO ", line)
    words = 'msg="session closed" session=sess_1 code=1000 reason="he said \\"bye\\"\\nlevel=ERROR" ttft_s=null'
    assert line.endswith(words), "nobody writes lines of his own into the log"


def test_a_line_for_programs() -> None:
    line = JsonFormatter().format(record("session closed", session="sess_1", reason="two\nlines", path=Path("x")))
    assert "\n" not in line
    said = json.loads(line)
    assert datetime.fromisoformat(said.pop("time")).tzinfo is not None
    assert said == {
        "level": "INFO",
        "logger": "inf_stream.part",
        "message": "session closed",
        "session": "sess_1",
        "reason": "two\nlines",
        "path": "x",
    }


def test_a_traceback_is_below_the_line_or_in_it() -> None:
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        one = record("session broken", error, session="sess_1")
    text = TextFormatter().format(one)
    assert text.splitlines()[0].endswith('msg="session broken" session=sess_1')
    assert text.splitlines()[-1] == "ZeroDivisionError: a bug"
    said = json.loads(JsonFormatter().format(one))
    assert said["exception"].splitlines()[-1] == "ZeroDivisionError: a bug"


def test_records_of_others_are_lines_too() -> None:
    one = logging.LogRecord("aiohttp.server", logging.WARNING, "x.py", 1, "of %d things", (3,), None)
    assert json.loads(JsonFormatter().format(one))["message"] == "of 3 things"
    assert TextFormatter().format(one).endswith('level=WARNING msg="of 3 things"')


def test_what_libraries_say_is_written_in_the_same_form() -> None:
    code = """
import logging, warnings
import huggingface_hub.utils, transformers
from inf_stream.server.log import log_to_stderr
log_to_stderr("json")
for name in ("transformers.models", "huggingface_hub.file_download", "asyncio"):
    logging.getLogger(name).error("from %s", name)
warnings.warn("an old function")
logging.getLogger("asyncio").info("only what is wrong is told of others")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == [
        "transformers.models", "huggingface_hub.file_download", "asyncio", "py.warnings",
    ]  # fmt: skip
    assert "an old function" in lines[-1]["message"]


class Heard:
    """Messages of the log with their fields."""

    def __init__(self, caplog: pytest.LogCaptureFixture):
        self.lines = [(r.message, dict(getattr(r, "fields", {}))) for r in caplog.records if r.name.startswith("inf_")]

    def all(self, message: str) -> list[dict[str, Any]]:
        return [values for one, values in self.lines if one == message]

    def only(self, message: str) -> dict[str, Any]:
        (values,) = self.all(message)
        return values


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "inf_stream")
    return caplog


def test_the_life_of_a_session(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as server:
            async with streaming(server) as client:
                hello = await client.next()
                await client.frame(picture())
                await client.frame(b"no image")
                await client.outcomes(2)
                await client.say("ask", id="mine", text=SECRET, aside=True)
                await client.until("answer.finished")
                client.socket.transport.abort()
            while any(channel.is_connected for channel in server.channels):
                await asyncio.sleep(0.002)
            async with streaming(server, f"?resume={hello['handle']}&after=1") as again:
                await again.next()
            while server.hub.sessions:
                await asyncio.sleep(0.002)
        heard, session = Heard(log), hello["session"]
        order = [message for message, values in heard.lines if values.get("session") == session]
        assert order == [
            "session opened", "connection opened", "answer finished", "connection closed", "connection opened",
            "connection closed", "session closed",
        ]  # fmt: skip
        assert heard.only("session opened")["sessions"] == 1
        opened, back = heard.all("connection opened")
        assert (opened["path"], opened["remote"], opened["resumed"]) == ("/v1/stream", "127.0.0.1", False)
        assert back["resumed"]
        lost, left = heard.all("connection closed")
        assert (lost["code"], lost["reason"]) == (1006, "the connection was lost")
        assert (left["code"], left["reason"]) == (1000, "the client hung up")
        answer = heard.only("answer finished")
        assert (answer["reason"], answer["tokens"], answer["aside"]) == ("stop", 3, True)
        assert answer["question_id"].startswith(session)
        assert answer["ttft_s"] >= 0
        assert answer["tokens_per_s"] > 0
        closed = heard.only("session closed")
        assert (closed["code"], closed["reason"]) == (1000, "the client has left")
        assert (closed["frames_accepted"], closed["frames_dropped"], closed["frames_error"]) == (1, 0, 1)
        assert closed["age_s"] > 0
        assert heard.only("draining") == {"sessions": 0, "patience_s": 5.0}
        assert heard.only("stopped") == {"sessions_opened": 1}
        everything = str(heard.lines)
        assert SECRET not in everything
        assert hello["handle"] not in everything, "whoever reads the log cannot take sessions over"

    run_clean(main())


def test_refusals_and_ends_by_the_server(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(sessions=1, message_bytes=2000, grace_s=0.0, keys=(KEY,)) as server:
            header = {"additional_headers": {"Authorization": f"Bearer {KEY}"}}
            async with streaming(server, **header) as first:
                await first.next()
                async with streaming(server, **header) as second:
                    await second.closed()
                await first.frame(b"x" * 3000)
                await first.closed()
            while server.hub.sessions:
                await asyncio.sleep(0.002)
            async with streaming(server, f"?resume={SECRET}", **header) as late:
                await late.closed()
            await get(server, f"/v1/models?key={WRONG_KEY}", headers={"Authorization": f"Bearer {WRONG_KEY}"})
            await get(server, "/v1/" + "x" * 1000, headers={"Authorization": f"Bearer {KEY}"})
            async with streaming(server, **header) as last:
                await last.next()
                listening = asyncio.create_task(last.closed())
                await asyncio.sleep(0)
                draining = asyncio.create_task(server.channels.drain(1.0))
                assert (await listening)[0] == 1001
                await draining
        heard = Heard(log)
        refused = heard.only("session refused")
        assert (refused["reason"], refused["sessions"], refused["retry_after_s"]) == ("sessions", 1, 10)
        ends = [(one["session"] is not None, one["code"]) for one in heard.all("connection closed")]
        assert ends == [(False, 1013), (True, 1009), (False, 1008), (True, 1001)]
        assert heard.all("session closed")[-1]["reason"] == "the server stops"
        keyless, unknown = heard.all("request refused")
        assert (keyless["status"], keyless["method"], keyless["path"]) == (401, "GET", "/v1/models")
        assert (unknown["status"], len(unknown["path"])) == (404, 200)
        assert not {KEY, WRONG_KEY, SECRET} & set(re.findall(r"[\w-]+", str(heard.lines)))

    run_clean(main())


@pytest.mark.parametrize(
    "first", [{"setup": SECRET}, {"setup": {}, "clientContent": SECRET}, {"clientContent": SECRET}]
)
def test_a_refusal_that_quotes_its_message_is_told_to_its_client_alone(
    log: pytest.LogCaptureFixture, first: dict[str, Any]
) -> None:
    async def main() -> None:
        async with serving_securely() as server:
            async with server.socket() as raw:
                await raw.say(**first)
                assert (await raw.closed())[0] == 1007
            async with server.socket() as raw:
                await raw.say(setup={})
                await raw.say(clientContent=SECRET)
                code, reason = await raw.closed()
                assert (code, SECRET in reason) == (1007, True)
            await server.is_empty()
        heard = Heard(log)
        closed = [*heard.all("connection closed"), *heard.all("session closed")]
        assert [(one["code"], one["reason"]) for one in closed] == [(1007, "a message was refused")] * 3
        assert SECRET not in str(heard.lines)

    run_clean(main())


def test_what_breaks_is_an_error_with_its_session(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: ZeroDivisionError("a bug")}))
        async with serving(maker) as server:
            async with streaming(server) as client:
                hello = await client.next()
                await client.say("ask", id="a", text="?")
                await client.closed()
            maker.free_bytes = lambda: 1 // 0  # type: ignore[method-assign, assignment]
            body = json.dumps({"messages": [{"role": "user", "content": "?"}]})
            await get(server, "/v1/chat/completions", "POST", data=body)
            async with streaming(server) as broken:
                await broken.closed()
        heard = Heard(log)
        assert heard.only("session broken")["session"] == hello["session"]
        assert heard.only("request failed")["path"] == "/v1/chat/completions"
        assert heard.only("connection failed")["path"] == "/v1/stream"
        assert heard.only("answer finished")["reason"] == "failed"
        errors = [r for r in log.records if r.levelno == logging.ERROR and r.name.startswith("inf_stream")]
        assert len(errors) == 3
        assert all(one.exc_info for one in errors)

    run_clean(main())


def test_every_line_of_a_server_is_an_object_and_none_tells_what_was_said(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(KEY)
    model = save_tiny(tmp_path / "tiny-model", "smolvlm")
    command = [sys.executable, "-m", "inf_stream", "serve", "--model", model, "--port", "0", "--threads", "1"]
    sizes = ["--max-tokens", "12", "--budget", "128", "--set", "cache.chunk_tokens=64"]
    with subprocess.Popen(
        [*command, *sizes, "--keys-file", keys, "--log-format", "json"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            first = json.loads(server.stderr.readline())
            assert (first["message"], first["model"], first["sessions_most"]) == ("listening", model.name, 4)
            said: list[str] = []
            run_clean(talk(first["address"], said))
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            rest = server.stderr.read()
        finally:
            server.kill()
    lines = [first, *(json.loads(line) for line in rest.splitlines())]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    messages = [line["message"] for line in lines]
    assert messages.index("answer finished") < messages.index("draining") < messages.index("stopped")
    assert {"session opened", "session closed", "connection closed"} <= set(messages)
    assert all(len(answer.strip()) > 3 for answer in said)
    assert not [text for text in (KEY, SECRET, *said) if text in rest]


async def talk(address: str, said: list[str]) -> None:
    async with (
        AsyncOpenAI(api_key=KEY, base_url=f"{address}/v1", max_retries=0) as client,
        client.realtime.connect(model="any") as connection,
    ):
        await connection.conversation.item.create(item=image_item(timestamp_ms=0))
        await connection.conversation.item.create(item=text_item(f"Is there a {SECRET}?"))
        await connection.response.create()
        done = (await until(connection, "response.done"))[-1].response
        said.append(done.output[0].content[0].text)


def test_an_unknown_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from inf_stream.cli.main import main

    assert main(["serve", "--log-format", "xml"]) == 2
    assert "--log-format: server.log_format is 'xml'; known: json, text" in capsys.readouterr().err
