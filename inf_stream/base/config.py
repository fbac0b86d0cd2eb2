"""Settings: frozen dataclasses filled from one TOML file; anything unknown is refused by name.

Each setting is a dataclass field made by `setting(default, doc)`, so that the reference table of all keys
(`python -m inf_stream.app.reference`) is generated from here and cannot go stale.
"""

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from inf_stream.base.errors import ConfigError
from inf_stream.base.files import is_unicode, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_MOST_FILE_BYTES = 1 << 20


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its explanation and its limits (both ends included)."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class ModelSettings:
    """`[model]`: which weights, where, and how they are spoken to."""

    name: str = setting(
        "auto",
        "built-in name, hub id, local folder, or GGUF file; auto: the built-in that sees, or for text alone the one "
        "that reads",
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")
    dtype: str = setting(
        "auto", "number format of weights and cache", choices=("auto", "float32", "bfloat16", "float16")
    )
    threads: int = setting(0, "CPU threads for the model; 0 leaves the choice to torch", low=0, high=1024)
    system_prompt: str = setting("", "text that opens every conversation; empty: the model's own default")
    time_format: str = setting(
        "auto",
        "text before each frame, e.g. '[{clock}] ' or '<{seconds:.1f} seconds>'; auto: the form the family "
        "was trained on; none: no time text",
    )
    frame_tokens: int = setting(
        0, "most visual tokens a frame may take, for families whose frames vary; 0: their default", low=0, high=1 << 16
    )


@dataclass(frozen=True)
class CacheSettings:
    """`[cache]`: how much is remembered and by which rule."""

    policy: str = setting("inf-mllm", "which tokens stay: see `inf-stream models --policies`")
    budget_tokens: int = setting(2048, "tokens kept per layer after each eviction", low=16, high=1 << 22)
    chunk_tokens: int = setting(256, "most tokens a single model step takes in", low=1, high=1 << 16)
    evict_every_tokens: int = setting(
        64, "least tokens between two evictions; at least the policy's retrieval window", low=1, high=1 << 16
    )


@dataclass(frozen=True)
class ArchiveSettings:
    """`[archive]`: what becomes of tokens that leave the cache, and how they come back for a question."""

    host_mib: int = setting(
        0, "memory of each session for blocks that left the cache; 0: they are forgotten", low=0, high=1 << 24
    )
    disk_mib: int = setting(
        0, "disk of each session for the blocks for which there is no memory left", low=0, high=1 << 30
    )
    folder: str = setting("", "folder for the disk's part; empty: the system's temporary folder")
    recall_tokens: int = setting(
        512, "most tokens that come back for a question; never more than the cache's budget", low=32, high=1 << 20
    )
    choose_by: str = setting(
        "auto",
        "what a question finds blocks by; means: its mean query and their mean keys; attention: that of each of its "
        "tokens to every archived key, which tells pieces of text apart and takes longer the larger the archive is; "
        "auto: text by attention, up to 256 pieces of it, and frames by means",
        choices=("auto", "means", "attention"),
    )
    merge_above: float = setting(
        0.95, "frames in a row that are more alike than this (cosine) are kept as one; 2: none are", low=0.0, high=2.0
    )
    keep_recalled: bool = setting(
        False, "what a question calls back stays with the memory until the next one; asides change nothing either way"
    )


@dataclass(frozen=True)
class AnswerSettings:
    """`[answer]`: how answers are generated."""

    max_tokens: int = setting(128, "longest answer", low=1, high=1 << 16)
    temperature: float = setting(0.0, "0 takes the likeliest token each time (repeatable)", low=0.0, high=10.0)
    top_p: float = setting(
        1.0, "nucleus sampling: smallest set of tokens with this total probability", low=1e-6, high=1.0
    )
    repetition_penalty: float = setting(
        1.0, "above 1 makes tokens of the same answer less likely again", low=1.0, high=10.0
    )
    seed: int = setting(0, "seed of the sampler", low=0, high=2**63 - 1)


@dataclass(frozen=True)
class SourceSettings:
    """`[source]`: how the stream is taken in."""

    fps: float = setting(1.0, "frames sampled per second of stream", low=1e-4, high=240.0)
    queue_frames: int = setting(8, "frames that may wait for the engine", low=1, high=4096)
    queue_rule: str = setting(
        "auto",
        "when the queue is full; auto: wait for files, drop-oldest for live sources",
        choices=("auto", "wait", "drop-oldest", "drop-latest"),
    )
    queue_questions: int = setting(64, "questions that may wait", low=1, high=4096)
    connect_timeout_s: float = setting(10.0, "longest wait for a camera or an address", low=0.1, high=600.0)
    reconnects: int = setting(
        8, "attempts to reach a lost live source again, with growing pauses", low=0, high=1_000_000
    )


@dataclass(frozen=True)
class ServerSettings:
    """`[server]`: who may connect to `inf-stream serve`, and how much each may ask of it."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 is every network, and then asks for keys")
    port: int = setting(8765, "TCP port; 0 takes a free one", low=0, high=65535)
    keys_file: str = setting(
        "", "file with one API key a line; more come from the environment variable INF_STREAM_API_KEYS, with commas"
    )
    open_to_all: bool = setting(False, "listen beyond this machine without any key")
    certificate: str = setting("", "TLS certificate, with those it was signed by (PEM); empty: no TLS")
    certificate_key: str = setting("", "private key of the certificate (PEM); empty: it is in the certificate's file")
    self_signed: bool = setting(False, "TLS with a certificate made at the start, for this machine's names and IPs")
    origins: str = setting(
        "", "web pages that may connect besides this server's own, e.g. 'https://a.example https://b.example'"
    )
    image_addresses: str = setting(
        "",
        "folders from which an image_url may be fetched, e.g. 'https://a.example/ file:///srv/pictures/'; empty: none",
    )
    sessions: int = setting(4, "sessions at once; one more is refused", low=1, high=4096)
    together: int = setting(
        8,
        "answers of so many sessions read their tokens in one pass over the weights; 1: each by itself",
        low=1,
        high=64,
    )
    connections: int = setting(64, "connections at once; one more is refused", low=1, high=65536)
    watches: int = setting(8, "standing questions of one session", low=0, high=256)
    watch_interval_s: float = setting(2.0, "least stream time between two looks of one watch", low=0.1, high=86400.0)
    frames_per_second: float = setting(10.0, "frames taken of one session; more are dropped", low=0.01, high=1000.0)
    frame_pixels: int = setting(1 << 24, "most pixels of one image", low=1, high=1 << 27)
    message_bytes: int = setting(1 << 23, "longest message or request body", low=1024, high=1 << 30)
    text_characters: int = setting(1 << 14, "longest text of one question or instruction", low=16, high=1 << 20)
    answer_tokens: int = setting(1024, "longest answer a client may ask for", low=1, high=1 << 16)
    queue_messages: int = setting(
        4096, "messages kept for a client that reads slowly or is away; with more it is cut off", low=16, high=1 << 20
    )
    idle_timeout_s: float = setting(600.0, "a session that says nothing for so long is ended", low=0.05, high=1e7)
    grace_s: float = setting(60.0, "how long a session outlives its lost connection", low=0.0, high=1e6)
    drain_s: float = setting(20.0, "how long a stopping server waits for answers to end", low=0.0, high=3600.0)
    ping_s: float = setting(20.0, "a silent client is asked so often whether it is there", low=0.05, high=3600.0)
    header_timeout_s: float = setting(
        10.0,
        "longest wait for a request's head or body, for a setup, or for images by address",
        low=0.05,
        high=3600.0,
    )
    log_format: str = setting(
        "text", "the log on standard error: lines for people, or one JSON object a line", choices=("text", "json")
    )
    state_folder: str = setting("", "folder in which sessions outlive the server; empty: they end with it")
    state_every_s: float = setting(60.0, "wall time between two saves of a session", low=0.05, high=1e6)
    state_sessions: int = setting(
        64, "sessions kept in the folder; with one more that of the oldest save goes", low=1, high=1 << 16
    )
    state_mib: int = setting(4096, "size of them together; beyond it those of the oldest saves go", low=1, high=1 << 30)
    state_expiry_s: float = setting(
        3600.0, "how long a session can be taken up again after its latest save", low=0.05, high=1e8
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a run; one TOML file holds one model on one device."""

    model: ModelSettings = field(default_factory=ModelSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    answer: AnswerSettings = field(default_factory=AnswerSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    policy: Mapping[str, Any] = field(default_factory=dict)
    """`[policy]`: options of the chosen cache policy, checked when the policy is made."""


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make the dataclass `cls` from `values`, checking names, types, limits and choices.

    Raises:
        ConfigError: naming the key in `where`, its value, the limit, and the nearest known key.
    """
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(_unknown(key, where, list(fields)))
        checked[key] = _checked(value, hints[key], fields[key].metadata, f"{where}.{key}" if where else key)
    return cls(**checked)


def settings_from_mapping(values: Mapping[str, Any], where: str = "configuration") -> Settings:
    """`Settings` from nested tables, as a TOML file gives them.

    Raises:
        ConfigError: as `build`.
    """
    sections = {
        "model": ModelSettings,
        "cache": CacheSettings,
        "archive": ArchiveSettings,
        "answer": AnswerSettings,
        "source": SourceSettings,
        "server": ServerSettings,
    }
    made: dict[str, Any] = {}
    for name, table in values.items():
        if name not in sections and name != "policy":
            raise ConfigError(_unknown(name, where, [*sections, "policy"]))
        if not isinstance(table, Mapping):
            raise ConfigError(f"'{name}' in {where} is {table!r}; write it as a table: [{name}]")
        made[name] = dict(table) if name == "policy" else build(sections[name], table, name)
    return Settings(**made)


def kept_settings(settings: Settings) -> dict[str, Any]:
    """Settings as `settings_from_mapping` takes them, for files that others may get: nothing of a server's keys."""
    return {name: table for name, table in dataclasses.asdict(settings).items() if name != "server"}


def load_table(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, unchecked.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    text = read_text(path, "configuration", _MOST_FILE_BYTES)
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"configuration '{path}' is not valid TOML: {error}") from error
    return values


def settings_from_file(path: Path, values: Mapping[str, Any]) -> Settings:
    """`Settings` from the tables of the file `path`.

    Raises:
        ConfigError: it holds something `build` refuses.
    """
    try:
        return settings_from_mapping(values, str(path))
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"configuration '{path}': {error}") from error


def load_settings(path: Path) -> Settings:
    """Read a TOML file.

    Raises:
        ConfigError: as `load_table` and `settings_from_file`.
    """
    return settings_from_file(path, load_table(path))


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean 'x'?` when something known is close, else the list of what is known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"


def shown(value: Any) -> str:
    """A value for messages, shortened."""
    try:
        written = repr(value)
    except ValueError:
        return f"a {type(value).__name__} with thousands of digits"
    return written if len(written) <= 80 else f"{written[:77]}..."


def _unknown(key: str, where: str, known: list[str]) -> str:
    return f"unknown key '{key}' in {where or 'settings'}{nearest(key, known)}"


def _checked(value: Any, hint: Any, metadata: Mapping[str, Any], name: str) -> Any:
    value = _typed(value, hint, name)
    low, high, choices = metadata.get("low"), metadata.get("high"), metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{name} is '{value}'{nearest(str(value), list(choices))}")
    if low is not None and not value >= low:
        raise ConfigError(f"{name} is {shown(value)}; the least allowed is {low}")
    if high is not None and not value <= high:
        raise ConfigError(f"{name} is {shown(value)}; the most allowed is {high}")
    return value


def _typed(value: Any, hint: Any, name: str) -> Any:
    allowed = get_args(hint) if get_origin(hint) is not None else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, name)
    if isinstance(value, bool) and bool not in allowed:
        raise ConfigError(f"{name} is {value}; {_kind(allowed[0])} is expected")
    if not isinstance(value, allowed):
        raise ConfigError(f"{name} is {shown(value)}; {_kind(allowed[0])} is expected")
    if isinstance(value, str) and not is_unicode(value):
        raise ConfigError(f"{name} is {shown(value)}, which holds bytes that are no text; write it in UTF-8")
    return value


def _kind(wanted: type) -> str:
    return f"a{'n' if wanted is int else ''} {wanted.__name__}"


def _as_float(value: int, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{name} is {shown(value)}, too large for any limit") from error
