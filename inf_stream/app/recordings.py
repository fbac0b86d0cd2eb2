"""Recordings on the command line: `--record FOLDER`, and a recording in place of a video."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inf_stream.base.config import Settings, kept_settings, settings_from_mapping
from inf_stream.base.errors import ConfigError
from inf_stream.session.loop import Observer
from inf_stream.session.replay import StepRecorder
from inf_stream.sources.recorder import EVENTS, Recorder
from inf_stream.sources.recording import Recording

LIMIT_BYTES = 16 << 30
"""Most bytes of one recording."""


def is_recording(address: str) -> bool:
    """Whether a video address is the folder of a recording."""
    try:
        return (Path(address) / EVENTS).is_file()
    except OSError:  # e.g. longer than any file name
        return False


def recorded_settings(folder: Path) -> Settings:
    """The settings a recording was made with: with them it gives the same answers again.

    Raises:
        SourceError: no recording, or damaged.
        ConfigError: it was made by a version with other settings.
    """
    recording = Recording(folder)
    try:
        return settings_from_mapping(recording.about.get("settings", {}))
    except ConfigError as error:
        raise ConfigError(f"recording '{folder}' was made with other settings than there are: {error}") from (error)


@contextmanager
def recorded(folder: Path | None, settings: Settings, warn: Callable[[str], None]) -> Iterator[Observer | None]:
    """An observer that records a session into `folder`, or None if there is none.

    Raises:
        SourceError: the folder is not empty or cannot be written.
    """
    if folder is None:
        yield None
        return
    about = {"settings": kept_settings(settings)}
    with Recorder(folder, LIMIT_BYTES, warn, about) as recorder:
        yield StepRecorder(recorder.record)
