"""The address of a server, tried before the model is loaded."""

import ipaddress
import socket
from typing import Any

import pytest

from inf_stream.base.errors import ConfigError
from inf_stream.server.web.listening import addresses_elsewhere, require_free


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


class Routed(socket.socket):
    """Has a route to every IPv4 address, and none by IPv6."""

    def connect(self, address: Any) -> None:
        assert self.type == socket.SOCK_DGRAM
        if self.family == socket.AF_INET6:
            raise OSError("no route")

    def getsockname(self) -> Any:
        return ("192.168.1.5", 1234)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [("0.0.0.0", ["192.168.1.5"]), ("", ["192.168.1.5"]), ("::", []), ("a.example", ["a.example"])],
)
def test_other_machines_find_it_by_the_address_of_the_default_route(
    monkeypatch: pytest.MonkeyPatch, host: str, addresses: list[str]
) -> None:
    monkeypatch.setattr(socket, "socket", Routed)
    assert addresses_elsewhere(host) == addresses


def test_the_address_for_other_machines_is_one_of_this_machine() -> None:
    for address in addresses_elsewhere(""):
        ip = ipaddress.ip_address(address)
        assert not ip.is_unspecified
        with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
