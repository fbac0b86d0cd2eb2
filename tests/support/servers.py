"""Small network cameras on loopback: HTTP and RTSP, well-behaved or not."""

import contextlib
import itertools
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av

from inf_stream.base.events import Pixels

Serve = Callable[[socket.socket, threading.Event], None]
"""Talks to one client; the event is set when the server goes away."""


@contextmanager
def serving(*visits: Serve) -> Iterator[int]:
    """A server on a free loopback port, whose first client gets the first visit, and so on; later ones are cut off."""
    leaving = threading.Event()
    waiting = list(visits)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if waiting:
                with contextlib.suppress(ConnectionError):
                    waiting.pop(0)(self.request, leaving)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            leaving.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def silent(connection: socket.socket, leaving: threading.Event) -> None:
    """Accepts, and never says a word."""
    leaving.wait(60)


def http(body: bytes, *, headers: str = "", status: str = "200 OK", then: Serve | None = None) -> Serve:
    """Answers any request with `body`, then hangs up, or does what `then` says."""

    def visit(connection: socket.socket, leaving: threading.Event) -> None:
        _head(connection)
        connection.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n".encode() + body)
        if then is not None:
            then(connection, leaving)

    return visit


def http_loop(body: bytes, enough: threading.Event) -> Serve:
    """Answers with `body` again and again, without a length, until there is `enough`."""

    def visit(connection: socket.socket, leaving: threading.Event) -> None:
        while not (enough.is_set() or leaving.is_set()):
            connection.sendall(body)

    return http(b"", then=visit)


def http_file(path: Path) -> Serve:
    """Serves a file with its length, as a whole."""
    data = path.read_bytes()
    return http(data, headers=f"Content-Length: {len(data)}\r\n")


def http_rest(path: Path) -> Serve:
    """Serves a file from the byte on that the client asks for."""
    data = path.read_bytes()

    def visit(connection: socket.socket, leaving: threading.Event) -> None:
        start = int(_head(connection)["range"].removeprefix("bytes=").rstrip("-"))
        length = f"Content-Length: {len(data) - start}\r\n"
        span = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n"
        connection.sendall(f"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n{length}{span}\r\n".encode())
        connection.sendall(data[start:])

    return visit


def rtsp(pictures: Sequence[Pixels], enough: threading.Event, *, then: Serve | None = None) -> Serve:
    """An RTSP camera over TCP that sends H.264 pictures, as fast as they are taken, again and again until `enough`."""

    def visit(connection: socket.socket, leaving: threading.Event) -> None:
        while head := _head(connection):
            answer = {
                "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n\r\n{_SDP}",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
                "PLAY": "Session: 1\r\nRange: npt=now-\r\n\r\n",
            }.get(head["method"], "\r\n")
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {head['cseq']}\r\n{answer}".encode())
            if head["method"] == "PLAY":
                for packet in _rtp_packets(_h264(pictures)):
                    if enough.is_set() or leaving.is_set():
                        break
                    connection.sendall(packet)
                if then is not None:
                    then(connection, leaving)
                return

    return visit


_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n" + (
    "a=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)
_RTP_TICKS = 9000


def _head(connection: socket.socket) -> dict[str, str]:
    """The next request: its method, and its headers in lower case; empty at the end."""
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        read = connection.recv(1)
        if not read:
            return {}
        text += read
    first, *rest = text.decode().strip().split("\r\n")
    headers = (line.partition(":") for line in rest)
    return {"method": first.split(" ")[0]} | {name.lower(): value.strip() for name, _, value in headers}


def _rtp_packets(access_units: Sequence[bytes]) -> Iterator[bytes]:
    sequence = 0
    for index, encoded in enumerate(itertools.cycle(access_units)):
        units = [unit for unit in encoded.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        for at, unit in enumerate(units):
            last = at == len(units) - 1
            header = struct.pack(
                ">BBHII", 0x80, 96 | (last << 7), sequence & 0xFFFF, index * _RTP_TICKS & 0xFFFFFFFF, 7
            )
            yield b"$\0" + struct.pack(">H", len(header) + len(unit)) + header + unit
            sequence += 1


def _h264(pictures: Sequence[Pixels]) -> list[bytes]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures[0].shape[:2]
    encoder.pix_fmt, encoder.framerate = "yuv420p", 10
    encoder.options = {"g": "10", "bf": "0", "tune": "zerolatency"}
    frames = [av.VideoFrame.from_ndarray(pixels, format="rgb24") for pixels in pictures]
    return [bytes(packet) for frame in [*frames, None] for packet in encoder.encode(frame)]
