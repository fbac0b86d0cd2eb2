"""Settings on the command line: flag over configuration file over default; this is the one place that merges."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from inf_stream.base.config import (
    AnswerSettings,
    ArchiveSettings,
    CacheSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SourceSettings,
    build,
    load_table,
    nearest,
    settings_from_file,
)
from inf_stream.base.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTIONS: Mapping[str, Any] = {
    "model": ModelSettings,
    "cache": CacheSettings,
    "archive": ArchiveSettings,
    "answer": AnswerSettings,
    "source": SourceSettings,
    "server": ServerSettings,
}
POLICY = "policy"

MODEL_FLAGS = {
    "--model": "model.name",
    "--device": "model.device",
    "--dtype": "model.dtype",
    "--threads": "model.threads",
    "--system": "model.system_prompt",
    "--time-format": "model.time_format",
}
"""Flag -> the setting it overrides: the model and how it is spoken to."""
MEMORY_FLAGS = {
    "--budget": "cache.budget_tokens",
    "--policy": "cache.policy",
    "--archive": "archive.host_mib",
    "--recall": "archive.recall_tokens",
}
"""The same: what is remembered."""
ANSWER_FLAGS = {
    "--max-tokens": "answer.max_tokens",
    "--temperature": "answer.temperature",
    "--seed": "answer.seed",
}
"""The same: how answers are generated."""
ENGINE_FLAGS = MODEL_FLAGS | MEMORY_FLAGS | ANSWER_FLAGS
"""All three, for every command that answers."""
SOURCE_FLAGS = {"--fps": "source.fps", "--queue-rule": "source.queue_rule"}
"""The same, for commands that take in video."""

_OF_AN_ARCHIVE = {
    "recall_tokens": ("host_mib", "--archive MIB"),
    "merge_above": ("host_mib", "--archive MIB"),
    "folder": ("disk_mib", "--set archive.disk_mib=MIB"),
}
"""Setting of `[archive]` -> the one without which it has no effect, and how to give that."""
_METAVARS = {
    "--archive": "MIB",
    "--budget": "TOKENS",
    "--certificate": "FILE",
    "--certificate-key": "FILE",
    "--keys-file": "FILE",
    "--log-format": "FORMAT",
    "--max-tokens": "TOKENS",
    "--model": "NAME",
    "--queue-rule": "RULE",
    "--recall": "TOKENS",
    "--state": "FOLDER",
    "--system": "TEXT",
    "--time-format": "TEXT",
}


@dataclass(frozen=True)
class Override:
    """One setting given on the command line.

    Attributes:
        flag: how the user wrote it, for messages.
        key: `section.name`.
        value: of the type the setting has, or as written for `--set`.
    """

    flag: str
    key: str
    value: Any


def add_setting_flags(
    group: argparse._ArgumentGroup, flags: Mapping[str, str], defaults: Sequence[Override] = ()
) -> None:
    """Add a flag for each setting in `flags` (flag -> setting), described by the setting itself.

    `defaults` are those of a command that has its own.
    """
    own = {one.key: one.value for one in defaults}
    for flag, key in flags.items():
        if _hint(key) is bool:
            group.add_argument(flag, dest=key, action="store_const", const=True, help=_help(key, {key: ""}))
            continue
        group.add_argument(
            flag,
            dest=key,
            type=_number(_hint(key)),
            metavar=_metavar(flag, _hint(key)),
            help=_help(key, own),
        )


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the model, its memory and its answers, a group each."""
    for title, flags in (("model", MODEL_FLAGS), ("memory", MEMORY_FLAGS), ("answers", ANSWER_FLAGS)):
        add_setting_flags(parser.add_argument_group(title), flags)


def add_configuration_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--set`."""
    group = parser.add_argument_group(
        "all other settings", "A flag goes before --config FILE, which goes before the defaults."
    )
    group.add_argument("--config", metavar="FILE", type=Path, help="TOML file with settings (see configs/)")
    group.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, policy options included, e.g. --set policy.bias_slope=4; repeatable",
    )


def overrides(arguments: argparse.Namespace, flags: Mapping[str, str]) -> list[Override]:
    """What the parsed command line overrides, flags first.

    Raises:
        ConfigError: a `--set` is not KEY=VALUE, or its key is unknown.
    """
    given = [Override(flag, key, getattr(arguments, key)) for flag, key in flags.items()]
    return [o for o in given if o.value is not None] + [
        _assignment(text) for text in getattr(arguments, "assignments", [])
    ]


def merge(config: Path | None, given: Sequence[Override], base: Settings | None = None) -> Settings:
    """The settings of a run: `given`, later ones over earlier ones, over the file `config` over the defaults.

    Without a file, `base` takes the place of the defaults.

    Options of `[policy]` in the file belong to the policy named there: another policy named in `given` starts
    from its own defaults.

    Raises:
        ConfigError: naming the flag or the file's key, its value, the limit, and the nearest known name; or one that
            would be without effect.
    """
    table = {} if config is None else load_table(config)
    settings = (base or Settings()) if config is None else settings_from_file(config, table)
    policy_of_file = settings.cache.policy
    for one in given:
        settings = _apply(settings, one)
    if settings.cache.policy != policy_of_file:
        options = {o.key.partition(".")[2]: o.value for o in given if o.key.startswith(f"{POLICY}.")}
        settings = dataclasses.replace(settings, policy=options)
    _require_effect(settings, given, table.get("archive", {}), config)
    return settings


def _require_effect(
    settings: Settings, given: Sequence[Override], in_file: Mapping[str, Any], config: Path | None
) -> None:
    """Refuse what was said of an archive, or of its disk, that there is not.

    A file may describe one and a flag, or the file itself, switch it off.
    """
    flags = {one.key: one.flag for one in given}
    for name, (needed, remedy) in _OF_AN_ARCHIVE.items():
        key = f"archive.{name}"
        is_switched_off = needed in in_file or f"archive.{needed}" in flags
        if getattr(settings.archive, needed) or not getattr(settings.archive, name):
            continue
        if key in flags or (name in in_file and not is_switched_off):
            where = flags.get(key) or f"{key} in '{config}'"
            raise ConfigError(f"{where} has no effect, since archive.{needed} is 0; add {remedy}, or leave it out")


def _apply(settings: Settings, one: Override) -> Settings:
    section, _, name = one.key.partition(".")
    if section == POLICY:
        return dataclasses.replace(settings, policy={**settings.policy, name: one.value})
    now = getattr(settings, section)
    values = {f.name: getattr(now, f.name) for f in dataclasses.fields(now)} | {name: one.value}
    try:
        return dataclasses.replace(settings, **{section: build(SECTIONS[section], values, section)})
    except ConfigError as error:
        raise ConfigError(f"{one.flag}: {error}") from error


def _assignment(text: str) -> Override:
    key, equals, written = text.partition("=")
    key, flag = key.strip(), f"--set {text}"
    section, _, name = key.partition(".")
    if not equals or not name:
        raise ConfigError(f"{flag}: write it as section.name=value, e.g. --set cache.chunk_tokens=128")
    if section == POLICY:
        return Override(flag, key, _literal(written))
    if section not in SECTIONS:
        raise ConfigError(f"{flag}: unknown section '{section}'{nearest(section, [*SECTIONS, POLICY])}")
    names = [f.name for f in dataclasses.fields(SECTIONS[section])]
    if name not in names:
        raise ConfigError(f"{flag}: unknown key '{name}' in {section}{nearest(name, names)}")
    return Override(flag, key, written if _hint(key) is str else _literal(written))


def _literal(written: str) -> Any:
    """A TOML value; what is none is a text."""
    try:
        values = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        return written
    return values["value"] if len(values) == 1 else written


def _hint(key: str) -> Any:
    section, _, name = key.partition(".")
    return get_type_hints(SECTIONS[section])[name]


def _help(key: str, own: Mapping[str, Any]) -> str:
    section, _, name = key.partition(".")
    field = next(f for f in dataclasses.fields(SECTIONS[section]) if f.name == name)
    choices, doc = field.metadata["choices"], field.metadata["doc"]
    listed = f" ({', '.join(choices)})" if choices else ""
    usual = own.get(key, field.default)
    default = f" [default: {usual}]" if usual != "" else ""
    return f"{doc}{listed}{default}".replace("%", "%%")


def _number(hint: Any) -> Any:
    """Converter of a flag's text, with a message for people."""
    if hint is str:
        return str
    wanted = "a whole number" if hint is int else "a number"

    def convert(text: str) -> Any:
        try:
            return hint(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}") from None

    return convert


def _metavar(flag: str, hint: Any) -> str:
    return _METAVARS.get(flag) or (flag.removeprefix("--").upper() if hint is str else "N")
