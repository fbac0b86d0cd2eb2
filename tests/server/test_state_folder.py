"""The folder of saved sessions: bounded, private, for one server, and careful with what is not its own."""

import os
import time
from pathlib import Path

import pytest
import torch
from support.durable import MIB, opened, saved

from inf_stream.base.errors import ConfigError, SessionError, StateError
from inf_stream.base.state import State
from inf_stream.server.connections.state_folder import StateFolder, name_of

A, B, C, D = (name_of(handle) for handle in "abcd")


def state_of(kib: int = 1, **facts: object) -> State:
    return State({"bytes": torch.zeros(kib << 10, dtype=torch.uint8)}, dict(facts))


def aged(folder: StateFolder, name: str, seconds: float) -> None:
    for path in folder.path.glob(f"{name}.*"):
        os.utime(path, (time.time() - seconds,) * 2)


def names(folder: StateFolder) -> set[str]:
    return {path.stem for path in saved(folder.path)}


def test_what_is_written_is_read_by_its_handle_alone(tmp_path: Path) -> None:
    folder = opened(tmp_path / "new" / "folder")
    size_bytes = folder.write(A, state_of(what="ever"), is_whole=False)
    assert (folder.sessions, folder.size_bytes) == (1, size_bytes)
    state, is_whole = folder.read("a")
    assert (state.facts["what"], is_whole) == ("ever", False)
    assert (folder.path.stat().st_mode & 0o777, folder.find("a").path.stat().st_mode & 0o777) == (0o700, 0o600)
    for wrong in ("b", "", A, "a\0", "\udcff", "../x"):
        with pytest.raises(SessionError, match="no session has this handle"):
            folder.read(wrong)
    folder.close()
    folder.close()


def test_a_session_has_one_file_that_says_whether_anything_came_after(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.write(A, state_of(), is_whole=True)
    assert folder.read("a")[1]
    folder.reopen(A)
    folder.reopen(A)
    assert [path.name for path in saved(tmp_path)] == [f"{A}.live"]
    folder.write(A, state_of(), is_whole=True)
    assert [path.name for path in saved(tmp_path)] == [f"{A}.whole"]
    folder.remove(A)
    folder.remove(A)
    assert (saved(tmp_path), folder.sessions, folder.size_bytes) == ([], 0, 0)
    folder.close()


def test_the_oldest_make_room_and_those_that_are_open_go_last(tmp_path: Path) -> None:
    folder = opened(tmp_path, most_sessions=2)
    for age, name in ((300, A), (200, B)):
        folder.write(name, state_of(), is_whole=True)
        aged(folder, name, age)
    folder.write(C, state_of(), is_whole=True)
    assert names(folder) == {B, C}
    folder.write(D, state_of(), is_whole=True, held={B, D})
    assert names(folder) == {B, D}
    folder.close()


def test_together_they_are_never_larger_than_allowed(tmp_path: Path) -> None:
    folder = opened(tmp_path, most_bytes=MIB)
    for age, name in ((300, A), (200, B), (100, C), (50, D)):
        folder.write(name, state_of(kib=400), is_whole=True)
        aged(folder, name, age)
        assert folder.size_bytes <= MIB
    assert names(folder) == {C, D}
    folder.write(C, state_of(kib=900), is_whole=True)
    assert names(folder) == {C}
    with pytest.raises(StateError, match=r"session of 2 MiB is larger than server\.state_mib, 1"):
        folder.write(A, state_of(kib=2048), is_whole=True)
    assert names(folder) == {C}, "nothing made room in vain"
    with pytest.raises(ConfigError, match=r"server\.state_mib is 1; a session takes up to 2 MiB: raise it"):
        folder.require_room(2 * MIB)
    folder.require_room(MIB)
    folder.close()


def test_a_disk_without_room_for_one_session_is_refused(tmp_path: Path) -> None:
    folder = opened(tmp_path, most_bytes=1 << 60)
    with pytest.raises(ConfigError, match=r"MiB free; a session takes up to .*: make room, or name another"):
        folder.require_room(1 << 59)
    folder.close()


def test_what_has_expired_is_not_found_and_swept_away_unless_it_is_open(tmp_path: Path) -> None:
    folder = opened(tmp_path, expiry_s=100)
    for name in (A, B, C):
        folder.write(name, state_of(), is_whole=True)
    aged(folder, A, 101)
    aged(folder, B, 101)
    with pytest.raises(SessionError):
        folder.find("a")
    assert folder.sweep(held={B}) == 1
    assert names(folder) == {B, C}
    folder.close()


def test_a_folder_is_for_one_server_until_that_is_gone(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(ConfigError, match="is in use by another server; give each its own"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_what_a_killed_server_left_is_tidied_up_and_nothing_else(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.write(A, state_of(when="before"), is_whole=False)
    (tmp_path / f"{A}.live").rename(tmp_path / "kept")
    folder.write(A, state_of(when="after"), is_whole=True)
    (tmp_path / "kept").rename(tmp_path / f"{A}.live")
    os.utime(tmp_path / f"{A}.live", (time.time() - 9,) * 2)
    folder.close()
    foreign = [tmp_path / name for name in ("notes.txt", "x.live", f"{A}.live.bak", f"{B[:-1]}.whole", f"{B}.part")]
    for path in foreign:
        path.write_text("mine")
        os.utime(path, (0, 0))
    (tmp_path / f".{B}.live.part").write_text("half")
    (tmp_path / ".probe").write_text("half")
    folder = opened(tmp_path, most_sessions=1, most_bytes=MIB)
    assert folder.read("a")[0].facts["when"] == "after"
    assert all(path.read_text() == "mine" for path in foreign)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", f"{A}.whole", *(path.name for path in foreign)}
    folder.close()


def test_limits_that_were_lowered_hold_from_the_start(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    for age, name in ((300, A), (200, B), (100, C)):
        folder.write(name, state_of(), is_whole=True)
        aged(folder, name, age)
    folder.close()
    folder = opened(tmp_path, most_sessions=2)
    assert names(folder) == {B, C}
    folder.close()


def test_a_folder_that_cannot_be_used_is_refused_and_left_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for hopeless in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/state")):
        with pytest.raises(ConfigError, match=r"cannot be used: .*; name one that is yours as --state"):
            opened(hopeless)

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="cannot be used: No space left on device"):
            opened(tmp_path / "full")
    assert not (tmp_path / "full" / ".probe").exists()
    opened(tmp_path / "full").close()
