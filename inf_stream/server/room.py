"""Is there room for sessions? Judged once, before the first client comes, rather than told to each of them."""

import shutil
import tempfile
from pathlib import Path

from inf_stream.base.config import ArchiveSettings, Settings
from inf_stream.base.errors import BudgetError, ConfigError
from inf_stream.server.sessions.admission import Admission
from inf_stream.server.sessions.engines import EngineMaker

_MIB = 1 << 20


def require_room(maker: EngineMaker, settings: Settings) -> None:
    """Refuse to serve if not one session fits into the memory, or not all that do have their part of the disk.

    Raises:
        BudgetError: with what is needed, what is free, and the remedy.
        ConfigError: `archive.folder` cannot be used.
    """
    free_bytes = maker.free_bytes()
    sessions = Admission(settings.server.sessions, maker.session_bytes, free_bytes).most_sessions
    if sessions == 0:
        what, less = ("cache and archive", ", archive.host_mib") if settings.archive.host_mib else ("cache", "")
        need_mib, free_mib = maker.session_bytes / _MIB, free_bytes / _MIB
        raise BudgetError(
            f"a session needs {need_mib:.0f} MiB for its {what}, {free_mib:.0f} MiB are free; lower "
            f"cache.budget_tokens, cache.chunk_tokens{less}, or use a smaller model"
        )
    if settings.archive.disk_mib:
        _require_disk(settings.archive, sessions)


def _require_disk(archive: ArchiveSettings, sessions: int) -> None:
    folder = Path(archive.folder or tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            free_mib = shutil.disk_usage(folder).free // _MIB
    except OSError as error:
        raise ConfigError(
            f"archives cannot be kept in '{folder}': {error.strerror}; name another folder as archive.folder"
        ) from error
    need_mib = sessions * archive.disk_mib
    if need_mib > free_mib:
        fewer = free_mib // archive.disk_mib
        raise BudgetError(
            f"{sessions} session{'s' if sessions > 1 else ''} with archive.disk_mib {archive.disk_mib} each need "
            f"{need_mib} MiB in '{folder}', {free_mib} MiB are free; lower archive.disk_mib to {free_mib // sessions}"
            f"{f' or server.sessions to {fewer}' if fewer else ''}, or name another folder as archive.folder"
        )
