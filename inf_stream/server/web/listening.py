"""The address to listen on, tried before anything slow is loaded."""

import errno
import socket

from inf_stream.base.errors import ConfigError


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


def cannot_listen(host: str, port: int, why: str) -> ConfigError:
    """The error for an address that somebody else has, or nobody can."""
    return ConfigError(f"cannot listen on {host}, port {port}: {why}; choose another --host or --port")
