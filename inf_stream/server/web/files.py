"""The web page that is served at `/`: a few files of the package, allowed to talk to this server and to nobody else."""

from importlib.resources import files

from aiohttp import web

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
INDEX = "index.html"
FOLDER = "/page/"
"""Where the page's other files are; they and the page itself are the same for everybody, so no key is asked for."""


class Page:
    """The files, read once."""

    def __init__(self) -> None:
        folder = files("inf_stream.server.web") / "page"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if _kind(file.name) is not None}

    @property
    def names(self) -> frozenset[str]:
        """Of all files."""
        return frozenset(self._files)

    async def index(self, _request: web.Request) -> web.Response:
        """The page itself."""
        return self._response(INDEX)

    async def file(self, request: web.Request) -> web.Response:
        """A file that the page names."""
        return self._response(request.match_info["name"])

    def _response(self, name: str) -> web.Response:
        content = self._files.get(name)
        if content is None:
            raise web.HTTPNotFound
        return web.Response(body=content, content_type=_kind(name), charset="utf-8", headers=_HEADERS)


def is_page(path: str) -> bool:
    """Whether a request is for the page or one of its files."""
    return path == "/" or path.startswith(FOLDER)


def _kind(name: str) -> str | None:
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)
