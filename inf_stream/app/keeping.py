"""`--save` and `--resume`, judged before anything slow is loaded."""

from dataclasses import dataclass
from pathlib import Path

from inf_stream.app.outputs import require_writable
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.errors import ConfigError
from inf_stream.base.state_facts import read_facts

SAVE_EVERY_S = 60


@dataclass(frozen=True)
class Keeping:
    """Where a session comes from and where it is kept.

    Attributes:
        save: file for the session, written while it runs and at its end, or None.
        every_ns: wall time between two snapshots.
        resume: file of the session to go on with, or None.
    """

    save: Path | None = None
    every_ns: int = SAVE_EVERY_S * NS_PER_S
    resume: Path | None = None

    def check(self, record: Path | None, disk_mib: int) -> None:
        """Refuse what cannot be done before anything slow starts.

        Raises:
            ConfigError: the session cannot be saved there, would take the place of another, has an archive of
                `disk_mib` on disk, or is to be recorded although it has a past.
            StateError: there is no session to go on with.
        """
        if self.save is not None:
            require_writable(self.save, "saved session")
            if self.save.exists() and self.save != self.resume:
                raise ConfigError(
                    f"saved session '{self.save}' exists; go on with it by --resume {self.save}, or delete it first"
                )
            if disk_mib:
                raise ConfigError(
                    f"--save writes the whole session each time, and archive.disk_mib is {disk_mib}: too much to be "
                    "copied while a stream goes on; leave out one of the two"
                )
        if self.resume is not None:
            read_facts(self.resume)
            if record is not None:
                raise ConfigError("a recording begins with a fresh session; leave --record or --resume out")


def saved_settings(path: Path) -> Settings:
    """The settings a session was saved with.

    Raises:
        StateError: the file is no saved session, or damaged.
        ConfigError: it was saved by a version with other settings.
    """
    try:
        return settings_from_mapping(read_facts(path).get("settings", {}))
    except ConfigError as error:
        raise ConfigError(f"saved session '{path}' was made with other settings than there are: {error}") from error
