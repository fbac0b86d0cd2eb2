"""Who may use the server: API keys, and web pages of known origin."""

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError
from inf_stream.base.files import read_text

KEYS_VARIABLE = "INF_STREAM_API_KEYS"
_SUBPROTOCOL = "openai-insecure-api-key."
_GOOGLE_HEADER = "x-goog-api-key"
_LEAST_CHARACTERS = 16
_MOST_FILE_BYTES = 1 << 20
_ORIGIN = re.compile(r"[A-Za-z][\w+.-]*://[^/\s?#@*,]+/?")


class Access:
    """Judges requests by their key and by the web page they come from.

    Keys are compared in constant time, all of them each time, by their digests.

    Args:
        keys: that let in; none lets everybody in.
        origins: web pages, as `scheme://host[:port]`, that may connect besides the server's own.
    """

    def __init__(self, keys: Iterable[str], origins: Iterable[str] = ()):
        self._digests = [_digest(key) for key in keys]
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    @property
    def has_keys(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def admits(self, headers: Mapping[str, str], in_query: str = "") -> bool:
        """Whether a request may come in that has its key in these headers, or in its query.

        The headers are `Authorization`, `x-goog-api-key`, or the subprotocols of a browser.
        """
        if not self._digests:
            return True
        given = _digest(_key_of(headers) or in_query)
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(digest, given)
        return found

    def welcomes(self, headers: Mapping[str, str]) -> bool:
        """Whether the web page that a request comes from, if it comes from one, may talk to this server.

        Without keys its own pages are only those it serves by an IP address or as localhost: a name that a stranger
        points here by DNS would be "its own", too.
        """
        origin = headers.get("Origin")
        if origin is None:
            return True
        origin = origin.rstrip("/").lower()
        if origin in self._origins:
            return True
        host = urlsplit(origin)
        is_own = bool(host.netloc) and host.netloc == headers.get("Host", "").lower()
        return is_own and (self.has_keys or not _is_given_by_dns(host.hostname or ""))


def read_keys(settings: ServerSettings, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The keys of a server, from its file and from the environment.

    Raises:
        ConfigError: the file cannot be read, or a key is too short to be one.
    """
    keys = [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    if settings.keys_file:
        lines = read_text(Path(settings.keys_file), "server.keys_file", _MOST_FILE_BYTES).splitlines()
        keys += [line.strip() for line in lines if not line.startswith("#")]
    keys = [key for key in keys if key]
    for key in keys:
        if len(key) < _LEAST_CHARACTERS:
            raise ConfigError(
                f"an API key has {len(key)} characters; at least {_LEAST_CHARACTERS} are asked for, e.g. what "
                '`python -c "import secrets; print(secrets.token_urlsafe())"` prints'
            )
    return keys


def read_origins(settings: ServerSettings) -> list[str]:
    """The web pages that may connect besides the server's own.

    Raises:
        ConfigError: one is no origin as browsers send them, so that no page would ever be let in by it.
    """
    origins = settings.origins.split()
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"server.origins has '{origin}', which is no origin of a web page; write them as https://a.example or "
                "http://192.168.1.20:8080, with spaces between them"
            )
    return origins


def require_safe_place(settings: ServerSettings, *, has_keys: bool) -> None:
    """Refuse to listen where strangers are without any key.

    Raises:
        ConfigError: with the remedies.
    """
    if has_keys or settings.open_to_all or is_loopback(settings.host):
        return
    raise ConfigError(
        f"server.host is '{settings.host}', which others can reach, and there is no API key; name a file with "
        f"--keys-file, set {KEYS_VARIABLE}, or say --open-to-all"
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, which nobody else reaches."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_given_by_dns(host: str) -> bool:
    if host == "localhost":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def _key_of(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    if headers.get(_GOOGLE_HEADER):
        return headers[_GOOGLE_HEADER].strip()
    for offered in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(_SUBPROTOCOL):
            return offered.strip().removeprefix(_SUBPROTOCOL)
    return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
