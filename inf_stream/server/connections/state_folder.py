"""The folder in which sessions outlive their server: one private file each, bounded in number, size and age."""

import hashlib
import hmac
import os
import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError, SessionError, StateError
from inf_stream.base.state import State, read_state, write_state

NO_SESSION = "no session has this handle, or it has ended; open a new one"
LIVE, WHOLE = ".live", ".whole"
"""Endings of files: the session went on after it was saved, or nothing came after."""
_OURS = re.compile(r"([0-9a-f]{64})(\.live|\.whole)")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}(\.live|\.whole)\.part")
_MIB = 1 << 20
_PROBE_BYTES = 1 << 16


def name_of(handle: str) -> str:
    """What a session's file is called: whoever reads the folder learns no handle from it."""
    return hashlib.sha256(handle.encode(errors="backslashreplace")).hexdigest()


@dataclass(frozen=True)
class SavedFile:
    """One session in the folder.

    Attributes:
        name: see `name_of`.
        path: of the file.
        saved_s: when it was written, as `time.time` has it.
        size_bytes: of the file.
    """

    name: str
    path: Path
    saved_s: float
    size_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing came after it was saved."""
        return self.path.suffix == WHOLE


class StateFolder:
    """Sessions as files, for one server alone until `close`. Files of others in the folder are left alone.

    Those that were saved longest ago go first when there are too many, or when together they are too large; while one
    is written, its old file is there, too. All methods are for one thread at a time.

    Attributes:
        path: of the folder.
        sessions: files in it, as of the latest change.
        size_bytes: of these files together.

    Raises:
        ConfigError: it cannot be made or written, or another server uses it.
    """

    def __init__(self, path: Path, *, most_sessions: int, most_bytes: int, expiry_s: float):
        self.path, self._most_sessions, self._most_bytes, self._expiry_s = path, most_sessions, most_bytes, expiry_s
        self.sessions, self.size_bytes = 0, 0
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0, mode=0o600)
            self._lock.acquire()
        except Timeout:
            raise ConfigError(f"state folder '{path}' is in use by another server; give each its own") from None
        except (OSError, NotImplementedError) as error:
            raise _unusable(path, error) from error
        try:
            _try_to_write(path / ".probe")
            self._tidy_up()
        except OSError as error:
            self.close()
            raise _unusable(path, error) from error

    @classmethod
    def from_settings(cls, server: ServerSettings) -> "StateFolder":
        """As the settings have it.

        Raises:
            ConfigError: see the class.
        """
        return cls(
            Path(server.state_folder),
            most_sessions=server.state_sessions,
            most_bytes=server.state_mib * _MIB,
            expiry_s=server.state_expiry_s,
        )

    def close(self) -> None:
        """Let another server have it; may be called more than once."""
        self._lock.release()

    def require_room(self, session_bytes: int) -> None:
        """Refuse a folder that could not hold one session.

        Raises:
            ConfigError: the limit is too low, or the disk too full.
        """
        need = f"a session takes up to {session_bytes / _MIB:.0f} MiB"
        if session_bytes > self._most_bytes:
            raise ConfigError(f"server.state_mib is {self._most_bytes // _MIB}; {need}: raise it")
        free_bytes = shutil.disk_usage(self.path).free
        if session_bytes > free_bytes:
            raise ConfigError(
                f"state folder '{self.path}' has {free_bytes / _MIB:.0f} MiB free; {need}: make room, or name another"
            )

    # ---- sessions ----------------------------------------------------------------------------------

    def find(self, handle: str) -> SavedFile:
        """The session with a handle that a client gave; all are looked at, for the same time each.

        Raises:
            SessionError: there is none, or it has expired.
        """
        wanted, found = name_of(handle), None
        for one in self._files():
            if hmac.compare_digest(one.name, wanted):
                found = one
        if found is None or self._is_over(found):
            raise SessionError(NO_SESSION)
        return found

    def read(self, handle: str) -> tuple[State, bool]:
        """What was saved under a handle, and whether nothing came after.

        Raises:
            SessionError: see `find`.
            StateError: the file is damaged, of another version, or none of ours; names no path.
        """
        found = self.find(handle)
        try:
            state = read_state(found.path)
        except StateError as error:
            raise StateError(" ".join(str(error).replace(f"'{found.path}'", "").split())) from error
        if state.facts.get("handle") != found.name:
            raise StateError("the saved session is of another handle; open a new one")
        return state, found.is_whole

    def write(self, name: str, state: State, *, is_whole: bool, held: Collection[str] = ()) -> int:
        """Save a session, in the place of what was saved of it before; returns the file's size in bytes.

        Those `held` are open in the server, and make room last.

        Raises:
            StateError: it is larger than the whole folder may be, or cannot be written.
        """
        size_bytes = sum(tensor.nbytes for tensor in state.tensors.values())
        if size_bytes > self._most_bytes:
            raise StateError(
                f"session of {size_bytes / _MIB:.0f} MiB is larger than server.state_mib, {self._most_bytes // _MIB}"
            )
        self._make_room(name, size_bytes, held)
        path = self.path / f"{name}{WHOLE if is_whole else LIVE}"
        size_bytes = write_state(State(state.tensors, state.facts | {"handle": name}), path)
        path.with_suffix(LIVE if is_whole else WHOLE).unlink(missing_ok=True)
        self._make_room(name, size_bytes, held)
        return size_bytes

    def reopen(self, name: str) -> None:
        """From now on more comes than was saved."""
        path = self.path / f"{name}{WHOLE}"
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(LIVE))

    def remove(self, name: str) -> None:
        """A session has ended for good."""
        for suffix in (LIVE, WHOLE):
            (self.path / f"{name}{suffix}").unlink(missing_ok=True)
        self._count(self._files())

    def sweep(self, held: Collection[str] = ()) -> int:
        """Remove what has expired, but nothing `held`; returns how many are gone."""
        over = [one for one in self._files() if one.name not in held and self._is_over(one)]
        for one in over:
            one.path.unlink(missing_ok=True)
        self._count(self._files())
        return len(over)

    # ---- inside ------------------------------------------------------------------------------------

    def _tidy_up(self) -> None:
        """What a server left that was killed: unfinished files, and old ones beside new ones."""
        for path in list(self.path.iterdir()):
            if _UNFINISHED.fullmatch(path.name) is not None:
                path.unlink()
        newest: dict[str, SavedFile] = {}
        for one in sorted(self._files(), key=_age):
            older = newest.get(one.name)
            newest[one.name] = one
            if older is not None:
                older.path.unlink()
        self.sweep()
        self._make_room("", 0, ())

    def _files(self) -> list[SavedFile]:
        found = []
        for path in list(self.path.iterdir()):
            ours = _OURS.fullmatch(path.name)
            if ours is not None:
                with suppress(FileNotFoundError):
                    about = path.stat()
                    found.append(SavedFile(ours[1], path, about.st_mtime, about.st_size))
        return found

    def _is_over(self, one: SavedFile) -> bool:
        return time.time() - one.saved_s > self._expiry_s

    def _make_room(self, name: str, size_bytes: int, held: Collection[str]) -> None:
        """Remove others until a session called `name`, of that size, fits beside the rest."""
        others = [one for one in self._files() if one.name != name]
        others.sort(key=lambda one: (one.name in held, _age(one)), reverse=True)
        places = self._most_sessions - (1 if name else 0)
        while others and (len(others) > places or sum(o.size_bytes for o in others) + size_bytes > self._most_bytes):
            others.pop().path.unlink(missing_ok=True)
        self._count(self._files())

    def _count(self, files: Collection[SavedFile]) -> None:
        self.sessions, self.size_bytes = len(files), sum(one.size_bytes for one in files)


def _age(one: SavedFile) -> float:
    return one.saved_s


def _try_to_write(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _unusable(path: Path, error: Exception) -> ConfigError:
    why = getattr(error, "strerror", None) or error
    return ConfigError(f"state folder '{path}' cannot be used: {why}; name one that is yours as --state")
