"""The address to listen on, tried before anything slow is loaded, and those by which others find the server."""

import contextlib
import errno
import socket

from inf_stream.base.errors import ConfigError

EVERY_NETWORK = {
    "0.0.0.0": (socket.AF_INET,),
    "::": (socket.AF_INET6,),
    "": (socket.AF_INET, socket.AF_INET6),
}
"""Host to listen on that is no address of a machine -> the families it stands for."""
_FAR_AWAY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and the default route leads to them."""


def require_free(host: str, port: int) -> None:
    """Refuse an address that is unknown, taken, or not for this user; what else may fail is left to the server.

    Raises:
        ConfigError: naming it, and why.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                tried.bind(address)
                tried.listen()
    except UnicodeError as error:  # no name of a host has such parts
        raise cannot_listen(host, port, "not a name of a host") from error
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise cannot_listen(host, port, error.strerror or str(error)) from error


def addresses_elsewhere(host: str) -> list[str]:
    """How other machines name this one, if it listens on `host`: that, or for every network the address of its default
    route in each family. Empty if there is no such route.

    Connecting a UDP socket chooses a route, and sends nothing.
    """
    found = []
    for family in EVERY_NETWORK.get(host, ()):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as routed:
            routed.connect((_FAR_AWAY[family], 9))
            found.append(str(routed.getsockname()[0]))
    return found if host in EVERY_NETWORK else [host]


def cannot_listen(host: str, port: int, why: str) -> ConfigError:
    """The error for an address that somebody else has, or nobody can."""
    return ConfigError(f"cannot listen on {host}, port {port}: {why}; choose another --host or --port")
