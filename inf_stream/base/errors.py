"""Errors for callers. Each message says what went wrong, the value, the limit and the remedy."""


class InfStreamError(Exception):
    """Root of all errors this package raises on purpose; the command line prints it in one line."""


class ConfigError(InfStreamError):
    """A setting is unknown, of the wrong type, or out of range."""


class SourceError(InfStreamError):
    """A video, image folder, camera, address or recording cannot be opened or read."""


class ModelError(InfStreamError):
    """A model cannot be found, loaded, or is of a family that is not supported."""


class BudgetError(InfStreamError):
    """A piece of the stream does not fit the cache budget."""


class StateError(InfStreamError):
    """A saved session cannot be written or read, or belongs to another model or other settings."""


class SessionError(InfStreamError):
    """An event arrived that the session cannot take in its present state."""
