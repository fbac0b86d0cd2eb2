"""Small text files that users write, read with limits."""

from pathlib import Path

from inf_stream.base.errors import ConfigError


def read_text(path: Path, what: str, most_bytes: int) -> str:
    """The text of a UTF-8 file, without the byte order mark some editors put first; lines end in newlines.

    Pipes and devices are read too, but never past `most_bytes`.

    Raises:
        ConfigError: naming `what` and the path: it cannot be read, is too long, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{what} '{path}' cannot be read: {error.strerror or error}") from error
    if len(data) > most_bytes:
        raise ConfigError(f"{what} '{path}' has more than {most_bytes} bytes; give a shorter file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} '{path}' is not UTF-8 text: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: a command line's stray bytes and JSON's lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
