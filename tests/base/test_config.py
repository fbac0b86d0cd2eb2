"""Settings: what is known is taken exactly, everything else is refused by name."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.config import (
    AnswerSettings,
    ServerSettings,
    Settings,
    build,
    kept_settings,
    load_settings,
    nearest,
    setting,
    settings_from_mapping,
)
from inf_stream.base.errors import ConfigError

SECTIONS = {
    field.name: get_type_hints(Settings)[field.name]
    for field in dataclasses.fields(Settings)
    if dataclasses.is_dataclass(get_type_hints(Settings)[field.name])
}


def values_for(field: "dataclasses.Field[Any]", kind: type) -> st.SearchStrategy[Any]:
    """Every value a field takes."""
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if choices:
        return st.sampled_from(choices)
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(low, high)
    if kind is float:
        return st.floats(low, high)
    return st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Some sections, with some of their keys."""
    made = {}
    for name, section in SECTIONS.items():
        hints = get_type_hints(section)
        chosen = [field for field in dataclasses.fields(section) if draw(st.booleans())]
        made[name] = {field.name: draw(values_for(field, hints[field.name])) for field in chosen}
    return made


def toml(values: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, table in values.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())]
    return "\n".join(lines).replace("\x7f", "\\u007f")


@given(tables())
def test_every_allowed_value_comes_back(values: dict[str, dict[str, Any]]) -> None:
    made = settings_from_mapping(values)
    for name, section in SECTIONS.items():
        expected = dataclasses.asdict(section()) | values[name]
        assert dataclasses.asdict(getattr(made, name)) == expected


@given(values=tables())
def test_files_say_the_same_as_mappings(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = tmp_path_factory.mktemp("settings") / "run.toml"
    path.write_text(toml(values), encoding="utf-8")
    assert load_settings(path) == settings_from_mapping(values)


def test_defaults_keep_their_own_limits() -> None:
    for name, section in SECTIONS.items():
        defaults = dataclasses.asdict(section())
        assert build(section, defaults, name) == section()


def test_nothing_given_is_all_defaults() -> None:
    assert settings_from_mapping({}) == Settings()


def test_policy_options_pass_unchecked_and_copied() -> None:
    options = {"sinks": 4, "anything": [1]}
    made = settings_from_mapping({"policy": options})
    assert made.policy == options
    assert made.policy is not options


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().model.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache": {"budget": 5}}, "unknown key 'budget' in cache; did you mean 'budget_tokens'?"),
        ({"chache": {}}, "unknown key 'chache' in configuration; did you mean 'cache'?"),
        (
            {"qqqq": {}},
            "unknown key 'qqqq' in configuration; known: answer, archive, cache, model, policy, server, source",
        ),
        ({"model": 5}, "'model' in configuration is 5; write it as a table: [model]"),
        ({"policy": []}, "'policy' in configuration is []; write it as a table: [policy]"),
        ({"cache": {"budget_tokens": 15}}, "cache.budget_tokens is 15; the least allowed is 16"),
        ({"cache": {"budget_tokens": 1 << 30}}, "cache.budget_tokens is 1073741824; the most allowed is 4194304"),
        ({"cache": {"budget_tokens": "many"}}, "cache.budget_tokens is 'many'; an int is expected"),
        ({"cache": {"budget_tokens": 32.0}}, "cache.budget_tokens is 32.0; an int is expected"),
        ({"cache": {"budget_tokens": True}}, "cache.budget_tokens is True; an int is expected"),
        ({"source": {"fps": False}}, "source.fps is False; a float is expected"),
        ({"source": {"fps": 10**400}}, "source.fps is 1" + "0" * 76 + "..., too large for any limit"),
        ({"source": {"fps": float("nan")}}, "source.fps is nan; the least allowed is 0.0001"),
        ({"source": {"fps": float("inf")}}, "source.fps is inf; the most allowed is 240.0"),
        ({"model": {"name": 7}}, "model.name is 7; a str is expected"),
        (
            {"model": {"name": "\udcff"}},
            "model.name is '\\udcff', which holds bytes that are no text; write it in UTF-8",
        ),
        ({"model": {"dtype": "bfloat"}}, "model.dtype is 'bfloat'; did you mean 'bfloat16'?"),
        ({"source": {"queue_rule": "z"}}, "source.queue_rule is 'z'; known: auto, drop-latest, drop-oldest, wait"),
    ],
)
def test_refusals_name_the_key_the_value_and_the_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from_mapping(values)
    assert str(caught.value) == message


def test_numbers_too_long_to_be_written_are_refused_in_few_words() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from_mapping({"answer": {"seed": 10**5000}})
    assert str(caught.value).startswith("answer.seed is ")
    assert len(str(caught.value)) < 200


def test_whole_numbers_do_for_numbers() -> None:
    fps = settings_from_mapping({"source": {"fps": 2}}).source.fps
    assert (fps, type(fps)) == (2.0, float)


@dataclasses.dataclass(frozen=True)
class Options:
    """Kinds of fields the shipped sections do not have."""

    flag: bool = setting(False, "yes or no")
    limit: int | None = setting(None, "a number or nothing", low=1)
    ratio: float | None = setting(None, "a number or nothing")
    made: int = dataclasses.field(default=0, init=False)


@pytest.mark.parametrize("values", [{"flag": True}, {"limit": 3}, {"ratio": 0.5}, {}])
def test_other_kinds_of_fields(values: dict[str, Any]) -> None:
    assert build(Options, values, "x") == Options(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flag": 1}, "x.flag is 1; a bool is expected"),
        ({"limit": "3"}, "x.limit is '3'; an int is expected"),
        ({"limit": 0}, "x.limit is 0; the least allowed is 1"),
        ({"made": 1}, "unknown key 'made' in x"),
    ],
)
def test_other_kinds_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Options, values, "x")


def test_options_without_a_section_are_named_plainly() -> None:
    with pytest.raises(ConfigError, match=r"^temperature is -1.0; the least allowed is 0.0$"):
        build(AnswerSettings, {"temperature": -1}, "")
    with pytest.raises(ConfigError, match=r"^unknown key 'heat' in settings"):
        build(AnswerSettings, {"heat": 1}, "")


def test_nearest_or_all() -> None:
    assert nearest("budgt", ["budget", "chunk"]) == "; did you mean 'budget'?"
    assert nearest("xyz", ["b", "a"]) == "; known: a, b"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.toml' cannot be read: No such file"):
        load_settings(tmp_path / "run.toml")


@pytest.mark.parametrize("content", [b"[model", b"a = 1\na = 2"])
def test_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run.toml' is not valid TOML"):
        load_settings(path)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"run.toml' is not UTF-8 text"):
        load_settings(path)


def test_file_with_an_unknown_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[modle]\n")
    with pytest.raises(ConfigError, match=rf"unknown key 'modle' in {path}; did you mean 'model'\?"):
        load_settings(path)


def test_toml_reader_is_the_standard_one_where_there_is_one() -> None:
    assert ("tomllib" in sys.modules) == (sys.version_info >= (3, 11))


def test_file_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[cache]\nbuget_tokens = 9\n")
    with pytest.raises(ConfigError, match=r"run.toml': unknown key 'buget_tokens' in cache; did you mean"):
        load_settings(path)
    path.write_text("[cache]\nbudget_tokens = 'many'\n")
    with pytest.raises(ConfigError, match=r"run.toml': cache.budget_tokens is 'many'; an int is expected"):
        load_settings(path)


def test_files_of_a_run_say_nothing_of_a_servers_keys() -> None:
    settings = Settings(answer=AnswerSettings(max_tokens=7), server=ServerSettings(keys_file="/secret/keys"))
    kept = kept_settings(settings)
    assert "secret" not in json.dumps(kept)
    assert settings_from_mapping(kept) == Settings(answer=AnswerSettings(max_tokens=7))
