"""The address of a server, tried before the model is loaded."""

import socket

import pytest

from inf_stream.base.errors import ConfigError
from inf_stream.server.web.listening import require_free


def test_a_taken_port_and_an_impossible_host_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}: .*; choose another --host"):
            require_free("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot listen on x+\.y, port 1: not a name of a host"):
        require_free(f"{'x' * 70}.y", 1)


def test_a_free_port_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
    for _ in range(2):
        require_free("127.0.0.1", port)
    require_free("127.0.0.1", 0)
    require_free("", 0)


def test_what_else_fails_is_left_to_the_server() -> None:
    require_free("192.0.2.1", 0)
