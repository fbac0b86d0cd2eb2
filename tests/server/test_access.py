"""Keys, origins, and where a server may listen."""

import hmac
from pathlib import Path

import pytest

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError
from inf_stream.server.web.access import KEYS_VARIABLE, Access, is_loopback, read_keys, read_origins, require_safe_place

ONE, TWO = "first-key-of-many-characters", "second-key-of-many-characters"


def test_any_of_the_keys_lets_in_by_header_or_by_subprotocol() -> None:
    access = Access([ONE, TWO])
    for key in (ONE, TWO):
        assert access.admits({"Authorization": f"Bearer {key}"})
        assert access.admits({"Authorization": f"bearer  {key} "})
        assert access.admits({"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{key}"})
        assert access.admits({"x-goog-api-key": f" {key} "})
        assert access.admits({}, key)
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": ONE},
        {"Authorization": f"Basic {ONE}"},
        {"Authorization": f"Bearer {ONE}x"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \udcff\udc80"},
        {"Sec-WebSocket-Protocol": "realtime"},
        {"Sec-WebSocket-Protocol": "openai-insecure-api-key."},
        {"x-goog-api-key": f"{ONE}x"},
        {"x-goog-api-key": ""},
    ):
        assert not access.admits(headers), headers
        assert not access.admits(headers, f"{ONE}x"), headers
    assert Access([]).admits({})
    assert not Access([]).has_keys


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        assert len(a) == len(b)
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    assert Access([ONE, TWO]).admits({"Authorization": f"Bearer {ONE}"})
    assert not Access([ONE, TWO]).admits({"Authorization": "Bearer x"})
    assert not Access([ONE, TWO]).admits({"x-goog-api-key": "x"})
    assert not Access([ONE, TWO]).admits({}, "x")
    assert compared == [32] * 8


@pytest.mark.parametrize(
    ("keys", "host", "origin", "welcome"),
    [
        ([], "127.0.0.1:8765", None, True),
        ([], "127.0.0.1:8765", "http://127.0.0.1:8765", True),
        ([], "localhost:8765", "http://localhost:8765", True),
        ([], "[::1]:8765", "http://[::1]:8765", True),
        ([], "192.168.1.5:8765", "http://192.168.1.5:8765", True),
        ([], "192.168.1.5:8765", "http://192.168.1.6:8765", False),
        ([], "127.0.0.1.evil.example", "http://127.0.0.1.evil.example", False),
        ([], "127.0.0.1:8765", "http://127.0.0.1:9999", False),
        ([], "evil.example:8765", "http://evil.example:8765", False),  # a stranger's name for this machine
        ([ONE], "my.example", "https://my.example", True),
        ([ONE], "my.example", "https://evil.example", False),
        ([], "127.0.0.1:8765", "null", False),
        ([], "127.0.0.1:8765", "", False),
        ([], "", "", False),
        ([], "127.0.0.1:8765", "https://friend.example", True),
        ([], "127.0.0.1:8765", "https://FRIEND.example/", True),
        ([], "127.0.0.1:8765", "http://friend.example", False),
        ([], "127.0.0.1:8765", "https://friend.example.evil", False),
    ],
)
def test_only_known_pages_are_welcome(keys: list[str], host: str, origin: str | None, welcome: bool) -> None:
    access = Access(keys, ["https://friend.example"])
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert access.welcomes(headers) is welcome


def test_origins_that_no_browser_sends_are_refused() -> None:
    good = "https://a.example http://192.168.1.20:8080/ http://[::1]:80 app://local"
    assert read_origins(ServerSettings(origins=good)) == good.split()
    for wrong in ("a.example", "*", "https://a.example/page", "https://", "https://*.example", "https://a,https://b"):
        with pytest.raises(ConfigError, match="which is no origin of a web page; write them as"):
            read_origins(ServerSettings(origins=f"https://a.example {wrong}"))


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# keys\n\n  {ONE}  \n")
    settings = ServerSettings(keys_file=str(file))
    assert read_keys(settings, {}) == [ONE]
    assert read_keys(settings, {KEYS_VARIABLE: f"{TWO}, "}) == [TWO, ONE]
    assert read_keys(ServerSettings(), {}) == []
    with pytest.raises(ConfigError, match="has 5 characters; at least 16") as refused:
        read_keys(ServerSettings(), {KEYS_VARIABLE: "short"})
    assert "short" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"server\.keys_file"):
        read_keys(ServerSettings(keys_file=str(tmp_path / "none")), {})


def test_beyond_this_machine_a_key_is_needed_or_a_word() -> None:
    require_safe_place(ServerSettings(), has_keys=False)
    require_safe_place(ServerSettings(host="localhost"), has_keys=False)
    require_safe_place(ServerSettings(host="0.0.0.0"), has_keys=True)
    require_safe_place(ServerSettings(host="0.0.0.0", open_to_all=True), has_keys=False)
    for host in ("0.0.0.0", "::", "", "192.168.1.5", "my.example"):
        with pytest.raises(ConfigError, match=r"no API key; name a file with --keys-file"):
            require_safe_place(ServerSettings(host=host), has_keys=False)
    assert is_loopback("127.3.4.5")
    assert is_loopback("::1")
