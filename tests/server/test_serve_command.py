"""`inf-stream serve` as a program: what it refuses, what it says, how it ends."""

import asyncio
import contextlib
import gc
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from google import genai
from google.genai.errors import APIError
from google.genai.types import HttpOptions
from openai import AsyncOpenAI
from support.command_line import run, save_tiny
from support.durable import opened
from support.gemini_clients import facts_of, frame, turn
from support.realtime_clients import image_item, text_item, until
from support.serving import run_clean

from inf_stream.base.config import ServerSettings
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
        (["--certificate-key", "x"], "server.certificate_key is set, but server.certificate is not"),
        (["--origins", "https://a.example b.example"], "server.origins has 'b.example', which is no origin"),
        (["--port", "70000"], "--port: server.port is 70000; the most allowed is 65535"),
        (["--sessions", "0"], "the least allowed is 1"),
        (["--model", "smollm2-135m"], "reads text only"),
        (["--policy", "full", "--archive", "64"], "'full' forgets nothing that could be archived; leave out one"),
        (["--set", "archive.disk_mib=64"], "archive.host_mib is 0"),
        (["--state", "/proc/no"], "state folder '/proc/no' cannot be used"),
        (
            ["--state", "never-made", "--set", "archive.host_mib=4", "--set", "archive.disk_mib=9"],
            "archive.disk_mib is 9: too much to be copied",
        ),
        (["--set", "server.state_every_s=0"], "the least allowed is 0.05"),
        (["--set", "server.watch=1"], "unknown key 'watch' in server; did you mean 'watches'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    ran = run(capsys, "serve", "--port", 0, *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err
    assert not Path("never-made").exists()


def test_a_state_folder_is_refused_while_another_server_has_it_and_when_no_session_fits(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(opened(tmp_path)):
        ran = run(capsys, "serve", "--port", 0, "--model", model, "--state", tmp_path)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert f"state folder '{tmp_path}' is in use by another server; give each its own" in ran.err
    monkeypatch.setattr(module, "log_to_stderr", lambda form: None)
    small = ("--set", "server.state_mib=1")
    ran = run(capsys, "serve", "--port", 0, "--model", model, "--state", tmp_path, "--budget", 1 << 17, *small)
    assert ran.status == 2
    assert "server.state_mib is 1; a session takes up to" in ran.err
    opened(tmp_path).close()


def test_a_port_in_use_and_a_model_too_large_are_refused(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "log_to_stderr", lambda form: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run(capsys, "serve", "--model", model, "--port", taken.getsockname()[1])
    assert ran.status == 2
    assert "cannot listen on 127.0.0.1" in ran.err
    monkeypatch.setattr(module.SharedModel, "free_bytes", lambda self: 1000)
    ran = run(capsys, "serve", "--model", model, "--port", 0)
    assert ran.status == 2
    assert "0 MiB are free; lower cache.budget_tokens" in ran.err
    ran = run(capsys, "serve", "--model", model, "--port", 0, "--archive", 1)
    assert "for its cache and archive, 0 MiB are free" in ran.err
    assert ", archive.host_mib, or use" in ran.err


def test_the_search_for_garbage_leaves_out_what_was_loaded(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[int] = []

    async def serve_nobody(*_args: object) -> bool:
        frozen.append(gc.get_freeze_count())
        return False

    monkeypatch.setattr(module, "log_to_stderr", lambda form: None)
    monkeypatch.setattr(module, "_serve", serve_nobody)
    gc.unfreeze()
    try:
        assert run(capsys, "serve", "--model", model, "--port", 0).status == 0
    finally:
        gc.unfreeze()
    assert frozen[0] > 10_000


def test_archives_that_the_disk_cannot_hold_are_refused(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "log_to_stderr", lambda form: None)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000 << 20))
    words = ["serve", "--model", model, "--port", 0, "--archive", 1, "--sessions", 3]
    ran = run(capsys, *words, "--set", "archive.disk_mib=400", "--set", f"archive.folder={tmp_path}")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert f"3 sessions with archive.disk_mib 400 each need 1200 MiB in '{tmp_path}', 1000 MiB are free" in ran.err
    assert "lower archive.disk_mib to 333 or server.sessions to 2, or name another folder" in ran.err
    monkeypatch.undo()
    monkeypatch.setattr(module, "log_to_stderr", lambda form: None)
    ran = run(capsys, *words, "--set", "archive.disk_mib=1", "--set", f"archive.folder={tmp_path / 'gone'}")
    assert ran.status == 2
    assert "gone'" in ran.err
    assert "name another folder as archive.folder" in ran.err


@pytest.mark.parametrize(
    ("host", "has_tls", "said"),
    [
        ("127.0.0.1", False, ""),
        ("localhost", True, ""),
        ("0.0.0.0", False, "on other machines open a:1/ or b:2/; browsers there give the page no camera"),
        ("192.0.2.7", False, "add --self-signed or --certificate"),
        ("0.0.0.0", True, "on other machines open a:1/ or b:2/; browsers there warn of the certificate"),
    ],
)
def test_who_listens_beyond_this_machine_learns_what_to_open_and_what_cameras_need(
    host: str, has_tls: bool, said: str
) -> None:
    settings = ServerSettings(host=host, self_signed=has_tls)
    advice = module.advice_elsewhere(settings, ["a:1", "b:2"], has_tls=has_tls)
    assert said in advice
    assert bool(said) == bool(advice)
    if said:
        assert "open this machine's address; " in module.advice_elsewhere(settings, [], has_tls=has_tls)


def test_who_brings_a_certificate_knows_the_name_in_it() -> None:
    settings = ServerSettings(host="0.0.0.0", certificate="own.pem")
    assert module.advice_elsewhere(settings, ["a:1"], has_tls=True) == ""


def test_every_flag_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "serve", "--help")
    shown = capsys.readouterr().out
    for flag in SERVE_FLAGS:
        assert flag in shown


@contextlib.contextmanager
def served(model: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The program with a model, and its address; it has to end by itself, in order."""
    command = [sys.executable, "-m", "inf_stream", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    command += ["--max-tokens", "40", "--budget", "128", "--set", "cache.chunk_tokens=64", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.fullmatch(
                r"(\S+) at (https?://127\.0\.0\.1:\d+)/ \(a page\) and /v1, for 4 sessions of .* without any key; .*\n",
                line,
            )
            assert found is not None, line
            assert found[1] == model.name, "clients see no path"
            yield server, found[2]
            assert server.wait(30) == 0
            rest = server.stderr.read()
            assert "letting answers end" in rest
            assert 'msg="session closed"' in rest
            assert "Traceback" not in rest
        finally:
            server.kill()


def test_it_serves_a_real_model_and_sigterm_lets_the_answer_end(model: Path) -> None:
    with served(model) as (server, address):
        run_clean(_talk(address, server))


def test_it_serves_clients_of_gemini_live_over_tls_with_one_flag(model: Path) -> None:
    with served(model, "--self-signed") as (server, address):
        run_clean(_talk_live(address, server))


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


async def _talk_live(address: str, server: "subprocess.Popen[str]") -> None:
    port = int(address.rpartition(":")[2])
    certificate = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    trust = {"ssl": ssl.create_default_context(cadata=certificate)}
    client = genai.Client(api_key="none", http_options=HttpOptions(base_url=address, async_client_args=trust))
    async with client.aio.live.connect(model="any") as session:
        for grey in (20, 200):
            await session.send_realtime_input(video=frame(grey))
        await session.send_realtime_input(text="what?")
        heard = [await anext(session.receive())]
        server.send_signal(signal.SIGTERM)
        heard += await turn(session)
        assert [m.go_away.time_left for m in heard if m.go_away] == ["20s"]
        facts = facts_of(heard)
        assert facts["reason"] in ("stop", "length"), "not cancelled"
        assert facts["evidence"]
        usage = heard[-1].usage_metadata
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert {d.modality: d.token_count > 0 for d in usage.prompt_tokens_details} == {"TEXT": True, "IMAGE": True}
        with pytest.raises(APIError, match="1001"):
            await turn(session)
