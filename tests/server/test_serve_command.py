"""`inf-stream serve` as a program: what it refuses, what it says, how it ends."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from support.command_line import run, save_tiny
from support.realtime_clients import image_item, text_item, until
from support.serving import run_clean

from inf_stream.cli.serve import SERVE_FLAGS
from inf_stream.server import serve as module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-model"), "smolvlm")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "there is no API key; name a file with --keys-file"),
        (["--keys-file", "/nowhere/keys"], "server.keys_file"),
        (["--certificate", "/nowhere/cert.pem"], "cannot be used"),
        (["--certificate", "x", "--self-signed"], "choose one"),
        (["--port", "70000"], "--port: server.port is 70000; the most allowed is 65535"),
        (["--sessions", "0"], "the least allowed is 1"),
        (["--model", "smollm2-135m"], "reads text only"),
        (["--set", "server.watch=1"], "unknown key 'watch' in server; did you mean 'watches'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    ran = run(capsys, "serve", *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def test_a_port_in_use_and_a_model_too_large_are_refused(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_log_to_stderr", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run(capsys, "serve", "--model", model, "--port", taken.getsockname()[1])
    assert ran.status == 2
    assert "cannot listen on 127.0.0.1" in ran.err
    monkeypatch.setattr(module.SharedModel, "free_bytes", lambda self: 1000)
    ran = run(capsys, "serve", "--model", model, "--port", 0)
    assert ran.status == 2
    assert "0 MiB are free; lower cache.budget_tokens" in ran.err


def test_every_flag_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "serve", "--help")
    shown = capsys.readouterr().out
    for flag in SERVE_FLAGS:
        assert flag in shown


def test_it_serves_a_real_model_and_sigterm_lets_the_answer_end(model: Path) -> None:
    command = [sys.executable, "-m", "inf_stream", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        [*command, "--max-tokens", "40", "--budget", "128", "--set", "cache.chunk_tokens=64"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.fullmatch(
                r"(\S+) at (http://127\.0\.0\.1:\d+)/ \(a page\) and /v1, for 4 sessions of .* without any key; .*\n",
                line,
            )
            assert found is not None, line
            assert found[1] == model.name, "clients see no path"
            run_clean(_talk(found[2], server))
            assert server.wait(30) == 0
            rest = server.stderr.read()
            assert "letting answers end" in rest
            assert "event=closed" in rest
            assert "Traceback" not in rest
        finally:
            server.kill()


async def _talk(address: str, server: "subprocess.Popen[str]") -> None:
    async with (
        AsyncOpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0) as client,
        client.realtime.connect(model="any") as connection,
    ):
        for second in range(2):
            await connection.conversation.item.create(item=image_item(timestamp_ms=1000 * second))
        await connection.conversation.item.create(item=text_item("what?"))
        await connection.response.create()
        await until(connection, "response.content_part.added")
        server.send_signal(signal.SIGTERM)
        done = (await until(connection, "response.done"))[-1].response
        assert done.status in ("completed", "incomplete"), "not cancelled"
        assert done.usage.input_token_details.image_tokens > 0
        assert done.metadata["evidence"]
        with pytest.raises(Exception, match="1001"):
            await asyncio.wait_for(connection.recv_bytes(), 20)
