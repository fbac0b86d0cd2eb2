"""What an `image_url` may be, and how an address that is allowed is fetched."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from aiohttp import web
from support.realtime_clients import client_of, connected, data_uri, image_item, serving, text_item, until
from support.serving import ListMaker, picture, run_clean
from websockets.exceptions import ConnectionClosed

from inf_stream.base.errors import ConfigError
from inf_stream.server.connections.image_fetcher import ImageFetcher
from inf_stream.server.protocols.image_urls import AllowedAddresses, read_image_url
from inf_stream.server.protocols.pictures import PictureError

WEB = AllowedAddresses(["https://a.example/cameras/", "http://192.168.1.20:8080"])


def refused(uri: str, allowed: AllowedAddresses = WEB) -> str:
    with pytest.raises(PictureError) as error:
        read_image_url(uri, allowed, most_bytes=10)
    assert error.value.param == "image_url"
    return error.value.code


def test_data_uris_are_always_read() -> None:
    for allowed in (AllowedAddresses(), WEB):
        assert read_image_url(data_uri(b"abc"), allowed, most_bytes=10) == b"abc"
        capitals = "DATA:IMAGE/PNG;base64," + base64.b64encode(b"x").decode()
        assert read_image_url(capitals, allowed, most_bytes=10) == b"x"
        assert refused("data:image/png;base64,A", allowed) == "invalid_image"
        assert refused("data:image/png;base64,\ud800", allowed) == "invalid_image"
        assert refused(data_uri(bytes(20)), allowed) == "image_too_large"


def test_no_address_is_allowed_unless_it_is_named() -> None:
    for uri in ("http://a.example/cat.png", "https://127.0.0.1/", "file:///etc/passwd", "data:image/png,plain",
                "data:application/pdf;base64,AAAA", ""):  # fmt: skip
        assert refused(uri, AllowedAddresses()) == "invalid_image_url", uri


@pytest.mark.parametrize(
    "uri",
    [
        "https://a.example/cameras/1.jpg",
        "https://a.example:443/cameras/hall/1.jpg?at=5",
        "https://a.example/%63ameras/100%25.jpg",
        "https://a.example/cameras/hall;v=1/a..b.jpg",
        "HTTPS://A.EXAMPLE/cameras/../cameras/1.jpg",
        "http://192.168.1.20:8080/any.png",
    ],
)
def test_what_is_below_a_named_folder_is_allowed(uri: str) -> None:
    assert not isinstance(read_image_url(uri, WEB, most_bytes=10), bytes)


@pytest.mark.parametrize(
    "uri",
    [
        "http://a.example/cameras/1.jpg",
        "https://a.example/cameras",
        "https://a.example/camerasque/1.jpg",
        "https://a.example/cameras/../private/1.jpg",
        "https://a.example/cameras/%2e%2e/private/1.jpg",
        "https://a.example/cameras/..%2fprivate/1.jpg",
        "https://a.example/cameras/..%5cprivate/1.jpg",
        "https://a.example:8443/cameras/1.jpg",
        "https://a.example.evil.example/cameras/1.jpg",
        "https://a.example@evil.example/cameras/1.jpg",
        "https://me:secret@a.example/cameras/1.jpg",
        "https://:secret@a.example/cameras/1.jpg",
        "https://a.example/cameras%2f1.jpg",
        "https://a.example/cameras/%252e%252e/private/1.jpg",
        "https://a.example/cameras/%252e%252e%252fprivate/1.jpg",
        "https://a.example/cameras/%25252e%25252e/private/1.jpg",
        "https://a.example/cameras/%255c..%255cprivate/1.jpg",
        "https://a.example/cameras/..;/private/1.jpg",
        "https://a.example/cameras/..%3bx/private/1.jpg",
        "https://evil.example\\@a.example/cameras/1.jpg",
        "http://192.168.1.20/any.png",
        "http://[::1/any.png",
        "ftp://a.example/cameras/1.jpg",
        "//a.example/cameras/1.jpg",
        "file:///cameras/1.jpg",
        "https://a.example/cameras/" + "x" * 3000,
    ],
)
def test_what_only_looks_as_if_it_were_below_is_refused(uri: str) -> None:
    assert refused(uri) == "invalid_image_url"


@pytest.mark.parametrize(
    "folder",
    [
        "a.example",
        "https://",
        "ftp://a.example/",
        "https://me@a.example/",
        "https://:me@a.example/",
        "file:srv",
        "https://a.example/?x=1",
    ],
)
def test_a_folder_that_is_none_is_refused_at_the_start(folder: str) -> None:
    with pytest.raises(ConfigError, match="write folders as"):
        AllowedAddresses([folder])


def test_a_folder_of_this_machine_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        AllowedAddresses([(tmp_path / "none").as_uri()])


def test_files_below_a_named_folder_are_read_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a b.jpg").write_bytes(b"image")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "in" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in" / "round.jpg").symlink_to(tmp_path / "in" / "round.jpg")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    inside = (tmp_path / "in").as_uri()

    async def main() -> None:
        allowed = AllowedAddresses([inside])
        fetcher = ImageFetcher(allowed, most_bytes=10, patience_s=20.0)
        assert await fetcher.fetch([allowed.require(f"{inside}/deep/a%20b.jpg")]) == [b"image"]
        for name in ("out.jpg", "round.jpg", "pipe.jpg", "none.jpg", "deep", "x" * 300):
            with pytest.raises(PictureError, match="no such file") as error:
                await fetcher.fetch([allowed.require(f"{inside}/{name}")])
            assert error.value.code == "image_not_fetched"
            assert str(tmp_path) not in str(error.value)
        twice = [allowed.require(f"{inside}/deep/a%20b.jpg")] * 3
        with pytest.raises(PictureError, match="more than 10 bytes together"):
            await fetcher.fetch(twice)
        await fetcher.close()

    run_clean(main())
    for uri in (f"{inside}/../secret.jpg", f"{inside}/%2e%2e/secret.jpg", f"{inside}/..%2fsecret.jpg",
                f"file://localhost{tmp_path}/in/deep/a%20b.jpg", (tmp_path / "secret.jpg").as_uri()):  # fmt: skip
        assert refused(uri, AllowedAddresses([inside])) == "invalid_image_url", uri


@contextlib.asynccontextmanager
async def camera(asked: list[str]) -> AsyncIterator[str]:
    """A web server with pictures; `asked` gets the paths."""
    leaving = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        assert not {"Cookie", "Authorization"} & set(request.headers)
        match request.path:
            case "/in/hall.jpg":
                response = web.Response(body=picture(), content_type="image/jpeg")
                response.set_cookie("who", "you")
                return response
            case "/in/gone.jpg":
                return web.Response(status=404, text="a secret of the camera")
            case "/in/elsewhere.jpg":
                return web.Response(status=302, headers={"Location": "/out/secret.jpg"})
            case "/in/endless.jpg":
                stream = web.StreamResponse()
                await stream.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await stream.write(bytes(1 << 16))
                return stream
            case _:
                await leaving.wait()
                return web.Response()

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/in/"
    finally:
        leaving.set()
        await runner.cleanup()


def test_both_openai_interfaces_take_an_allowed_address() -> None:
    maker, asked = ListMaker(), list[str]()

    async def main() -> None:
        async with camera(asked) as folder, serving(maker, image_addresses=folder) as server:
            async with connected(server) as connection:
                await connection.conversation.item.create(item=image_item(image_url=f"{folder}hall.jpg"))
                await connection.conversation.item.create(item=text_item("what?"))
                await connection.response.create()
                await until(connection, "response.done")
            async with client_of(server) as client:
                image = {"type": "image_url", "image_url": {"url": f"{folder}hall.jpg"}}
                text = {"type": "text", "text": "what?"}
                said = await client.chat.completions.create(
                    model="lists",
                    messages=[{"role": "user", "content": [image, text]}],  # type: ignore[list-item]
                )
                assert said.choices[0].message.content

    run_clean(main())
    assert asked == ["/in/hall.jpg"] * 2
    for engine in maker.made:
        assert [line for line in engine.memory if line.startswith("frames")] == ["frames 0"]


@pytest.mark.parametrize(
    ("name", "code", "what"),
    [
        ("gone.jpg", "image_not_fetched", "answered 404"),
        ("elsewhere.jpg", "image_not_fetched", "redirects are not followed"),
        ("endless.jpg", "image_too_large", "bytes together"),
        ("silent.jpg", "image_not_fetched", "did not come within 0.5 s"),
    ],
)
def test_what_cannot_be_had_is_an_error_and_the_session_goes_on(name: str, code: str, what: str) -> None:
    asked: list[str] = []

    async def main() -> None:
        limits = {"header_timeout_s": 0.5, "message_bytes": 100_000}
        async with camera(asked) as folder, serving(image_addresses=folder, **limits) as server:
            async with connected(server) as connection:
                await connection.conversation.item.create(item=image_item(image_url=f"{folder}{name}"))
                error = (await until(connection, "error"))[-1].error
                assert error.code == code
                assert what in error.message
                assert "secret" not in error.message
                await connection.conversation.item.create(item=text_item("still there?"))
                await connection.response.create()
                assert (await until(connection, "response.done"))[-1].response.status == "completed"
            async with client_of(server) as client:
                image = {"type": "image_url", "image_url": {"url": f"{folder}{name}"}}
                with pytest.raises(openai.BadRequestError, match=what):
                    await client.chat.completions.create(
                        model="lists",
                        messages=[{"role": "user", "content": [image]}],  # type: ignore[list-item]
                    )
            assert server.hub.sessions == []

    run_clean(main())
    assert asked == [f"/in/{name}"] * 2, "and nothing it pointed to"


def test_a_server_that_stops_waits_for_no_image() -> None:
    asked: list[str] = []

    async def main() -> None:
        async with camera(asked) as folder, contextlib.AsyncExitStack() as clients:
            async with serving(image_addresses=folder, header_timeout_s=300.0) as server:
                connection = await clients.enter_async_context(connected(server))
                await connection.conversation.item.create(item=image_item(image_url=f"{folder}silent.jpg"))
                while not asked:
                    await asyncio.sleep(0.01)
            with pytest.raises(ConnectionClosed) as closed:
                await until(connection, "conversation.item.done")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001

    run_clean(main())


def test_a_server_that_is_not_there_is_told_without_its_address() -> None:
    async def main() -> None:
        allowed = AllowedAddresses(["http://127.0.0.1:9/"])
        fetcher = ImageFetcher(allowed, most_bytes=10, patience_s=20.0)
        with pytest.raises(PictureError, match="cannot be reached") as error:
            await fetcher.fetch([allowed.require("http://127.0.0.1:9/a.jpg")])
        assert "127.0.0.1" not in str(error.value)
        await fetcher.close()

    run_clean(main())
