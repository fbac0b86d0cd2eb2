"""TLS by one flag, or with the operator's own certificate."""

import asyncio
import logging
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from openai import AsyncOpenAI
from support.realtime_clients import KEY, until
from support.serving import ListMaker, run_clean, server_settings
from websockets.asyncio.client import connect

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError
from inf_stream.server.connections.sockets import _unsent_bytes
from inf_stream.server.running import running_server
from inf_stream.server.web import tls
from inf_stream.server.web.access import Access
from inf_stream.server.web.tls import self_signed_certificate, tls_context


def trusting(certificate: bytes) -> ssl.SSLContext:
    text = certificate.decode()
    return ssl.create_default_context(cadata=text[text.index("-----BEGIN CERTIFICATE") :])


def test_clients_that_trust_the_certificate_connect_and_others_do_not(tmp_path: Path) -> None:
    certificate = self_signed_certificate("127.0.0.1")
    file = tmp_path / "own.pem"
    file.write_bytes(certificate)
    context = tls_context(ServerSettings(certificate=str(file)))

    async def main() -> None:
        async with (
            running_server(ListMaker(), server_settings(), Access([KEY]), context) as server,
            aiohttp.ClientSession() as http,
        ):
            assert server.address.startswith("https://127.0.0.1:")
            async with http.get(f"{server.address}/health", ssl=trusting(certificate)) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await http.get(f"{server.address}/health")
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"{server.address.replace('https', 'http')}/health")
            more = {"ssl": trusting(certificate)}
            async with (
                AsyncOpenAI(api_key=KEY, base_url=f"{server.address}/v1", max_retries=0) as client,
                client.realtime.connect(model="lists", websocket_connection_options=more) as connection,  # type: ignore
            ):
                await until(connection, "session.created")
                await connection.response.create()
                await until(connection, "response.done")

    run_clean(main())


def test_its_certificate_holds_the_addresses_by_which_others_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "addresses_elsewhere", lambda host: {"0.0.0.0": ["192.168.1.5"]}.get(host, [host]))
    for host, address in (("0.0.0.0", "192.168.1.5"), ("10.0.0.1", "10.0.0.1")):
        certificate = x509.load_pem_x509_certificate(self_signed_certificate(host))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
        assert known == {"127.0.0.1", "::1", address}


def test_a_client_that_vanishes_over_tls_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate = self_signed_certificate("127.0.0.1")
    file = tmp_path / "own.pem"
    file.write_bytes(certificate)
    context = tls_context(ServerSettings(certificate=str(file)))

    async def main() -> None:
        async with running_server(ListMaker(), server_settings(), Access(()), context) as server:
            address = server.address.replace("https", "wss")
            socket = await connect(f"{address}/v1/stream", ssl=trusting(certificate))
            await socket.recv()
            assert any(channel.is_connected for channel in server.channels)
            socket.transport.abort()
            while any(channel.is_connected for channel in server.channels):
                await asyncio.sleep(0.01)

    run_clean(main())
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_a_connection_that_is_gone_has_nothing_unsent() -> None:
    class Gone(asyncio.Transport):
        def get_write_buffer_size(self) -> int:
            raise AttributeError("'NoneType' object has no attribute '_get_write_buffer_size'")

    assert _unsent_bytes(Gone()) == 0


def test_a_certificate_is_made_by_one_flag() -> None:
    context = tls_context(ServerSettings(self_signed=True, host="my-machine"))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls_context(ServerSettings()) is None


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for settings, words in (
        (ServerSettings(certificate=str(tmp_path / "none")), "No such file"),
        (ServerSettings(certificate=str(nonsense)), "no PEM certificate"),
        (ServerSettings(certificate=str(nonsense), certificate_key=str(nonsense)), "no PEM certificate"),
        (ServerSettings(certificate=str(nonsense), self_signed=True), "choose one"),
    ):
        with pytest.raises(ConfigError, match=words):
            tls_context(settings)
