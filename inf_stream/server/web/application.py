"""The HTTP side of the server: its routes, and what every request has to pass.

aiohttp serves HTTP and WebSockets on one port. It was chosen over websockets, which answers GET requests beside its
sockets but takes no request bodies, hence no chat completions, and over starlette with uvicorn, whose interface (ASGI)
has no way to abort the connection of a client that does not read.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from inf_stream.base.errors import InfStreamError
from inf_stream.server.connections.channel import Channel, MakeAdapter
from inf_stream.server.connections.channels import Channels
from inf_stream.server.connections.sockets import ReadFirst, SocketDoor
from inf_stream.server.log import fields
from inf_stream.server.protocols.chat import ChatAnswer, parse_chat, server_sent
from inf_stream.server.protocols.gemini import GeminiAdapter, read_first
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import MessageError, parse_object
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.protocols.realtime import RealtimeAdapter
from inf_stream.server.protocols.stream import StreamAdapter
from inf_stream.server.sessions.admission import AdmissionError
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.web.access import Access
from inf_stream.server.web.files import FOLDER, Page, is_page
from inf_stream.server.web.metrics import CONTENT_TYPE, Metrics

_LOG = logging.getLogger(__name__)
_PATH_CHARACTERS = 200
"""Of a path that is logged."""
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GEMINI = (
    r"/{slash:/?}ws/google.ai.generativelanguage.{version:v1|v1beta|v1alpha}.GenerativeService.BidiGenerateContent"
)
"""Some clients ask with two slashes in front."""


class WebServer:
    """All routes over one hub.

    Args:
        hub: of the sessions.
        channels: of the hub.
        decoder: of images.
        access: who may come in.
        metrics: counts everything.
        let_in: told the connection of each request, once its head has come.
    """

    def __init__(
        self,
        hub: Hub,
        channels: Channels,
        decoder: PictureDecoder,
        access: Access,
        metrics: Metrics,
        let_in: Callable[[asyncio.BaseTransport | None], None],
    ):
        self._hub, self._channels, self._decoder = hub, channels, decoder
        self._access, self._metrics, self._let_in = access, metrics, let_in
        self._settings = hub.settings.server
        self._limits = ClientLimits.from_settings(hub.settings, hub.maker)
        self._door = SocketDoor(
            channels,
            message_bytes=self._settings.message_bytes,
            ping_s=self._settings.ping_s,
            patience_s=self._settings.header_timeout_s,
            on_closed=lambda end: metrics.closed(end.code),
        )

    def application(self) -> web.Application:
        """For aiohttp."""

        @web.middleware
        async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=self._settings.message_bytes)
        page = Page()
        app.router.add_get("/", page.index)
        app.router.add_get(f"{FOLDER}{{name}}", page.file)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_get("/v1/sessions", self._sessions)
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_get("/v1/stream", self._stream)
        app.router.add_get(_GEMINI, self._gemini, name="gemini")
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    # ---- what every request has to pass ------------------------------------------------------------

    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._let_in(request.transport)
        response = await self._guarded(request, handler)
        if response.status >= 400:
            self._metrics.refused(response.status)
            facts = {"method": request.method, "path": request.path[:_PATH_CHARACTERS], "remote": request.remote}
            _LOG.info("request refused", extra=fields(status=response.status, **facts))
        return response

    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        is_open = request.path == "/health" or is_page(request.path)
        if not self._access.welcomes(request.headers) and not is_page(request.path):
            return error_response(
                403,
                "web pages of this origin may not use this server; start it with keys, or name the origin in --origins",
                "origin_not_allowed",
            )
        in_query = request.query.get("key", "") if request.match_info.route.name == "gemini" else ""
        if not is_open and not self._access.admits(request.headers, in_query):
            why = "a valid API key is needed: Authorization: Bearer KEY, or x-goog-api-key: KEY"
            response = error_response(401, why, "invalid_api_key")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        try:
            return await handler(request)
        except AdmissionError as error:
            response = error_response(429, str(error), "rate_limit_exceeded")
            response.headers["Retry-After"] = str(error.retry_after_s)
            return response
        except MessageError as error:
            return error_response(400, str(error), error.code, error.param)
        except InfStreamError as error:
            return error_response(400, str(error), "invalid_request")
        except web.HTTPException as error:
            return error_response(error.status, error.reason, "http_error")
        except (ConnectionError, asyncio.CancelledError):
            raise
        except asyncio.TimeoutError:
            return error_response(408, "the request's body did not come in time", "timeout")
        except Exception:  # noqa: BLE001 a request that breaks the server breaks nothing else
            _LOG.exception("request failed", extra=fields(method=request.method, path=request.path[:_PATH_CHARACTERS]))
            return error_response(500, "the server failed; its log says more", "server_error")

    # ---- sockets -----------------------------------------------------------------------------------

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        return await self._socket(
            request,
            "realtime",
            lambda session, watchman, handle: RealtimeAdapter(session, self._limits, watchman, handle),
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await self._socket(
            request,
            "inf-stream",
            lambda session, watchman, handle: StreamAdapter(session, self._limits, watchman, handle),
        )

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        return await self._socket(
            request,
            "gemini-live",
            lambda session, watchman, handle: GeminiAdapter(session, self._limits, watchman, handle),
            read_first,
        )

    async def _socket(
        self, request: web.Request, subprotocol: str, make: MakeAdapter, read_first: ReadFirst | None = None
    ) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return error_response(426, "this address is for WebSocket connections", "upgrade_required")
        return await self._door.serve(request, subprotocol, make, read_first)

    # ---- plain requests ----------------------------------------------------------------------------

    async def _health(self, _request: web.Request) -> web.Response:
        status = "draining" if self._hub.is_draining else "ok"
        return web.json_response({"status": status}, status=503 if self._hub.is_draining else 200)

    async def _metrics_text(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model_object()]})

    async def _model(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != self._hub.maker.name:
            return error_response(404, f"this server runs '{self._hub.maker.name}' alone", "model_not_found", "model")
        return web.json_response(self._model_object())

    def _model_object(self) -> dict[str, Any]:
        return {"id": self._hub.maker.name, "object": "model", "created": 0, "owned_by": "inf-stream"}

    async def _sessions(self, _request: web.Request) -> web.Response:
        connected = {channel.session.id: channel for channel in self._channels}
        found = [
            {"id": session.id, "connected": _is_connected(connected.get(session.id)), **session.stats()}
            for session in self._hub.sessions
        ]
        return web.json_response({"object": "list", "data": found, "most": self._hub.admission.most_sessions})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await asyncio.wait_for(request.read(), self._settings.header_timeout_s)
        wanted = parse_chat(parse_object(body), self._limits)
        answer = ChatAnswer(self._hub, self._decoder, wanted)
        async with contextlib.aclosing(answer.pieces()) as pieces:
            if wanted.stream:
                return await _stream_chat(request, answer, pieces, include_usage=wanted.include_usage)
            text = ""
            async for piece in pieces:
                text += piece
                _require_listener(request)
        if answer.finish_reason is None:
            return error_response(503, answer.failure or "the answer failed", "server_error")
        return web.json_response(answer.completion(text))


async def _stream_chat(
    request: web.Request, answer: ChatAnswer, pieces: AsyncGenerator[str, None], *, include_usage: bool
) -> web.StreamResponse:
    first = await anext(pieces, "")  # what is wrong with the request shows before its first piece
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(server_sent(answer.chunk({"role": "assistant", "content": first})))
    async for piece in pieces:
        await response.write(server_sent(answer.chunk({"content": piece})))
    if answer.finish_reason is None:
        failure = {"message": answer.failure or "the answer failed", "type": "server_error", "code": "server_error"}
        await response.write(server_sent({"error": failure}))
    else:
        await response.write(server_sent(answer.chunk({}, answer.finish_reason)))
    if include_usage:
        await response.write(server_sent(answer.usage_chunk()))
    await response.write(server_sent("[DONE]"))
    await response.write_eof()
    return response


def _require_listener(request: web.Request) -> None:
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client has left")


def _is_connected(channel: Channel | None) -> bool:
    return channel is not None and channel.is_connected


def error_response(status: int, message: str, code: str, param: str | None = None) -> web.Response:
    """An error as clients of OpenAI's interface expect it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.Response(status=status, text=json.dumps({"error": error}), content_type="application/json")
