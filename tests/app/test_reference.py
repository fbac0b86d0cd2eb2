"""The reference of all settings is the committed page, and every shipped configuration obeys it."""

import dataclasses
import json
from pathlib import Path

import pytest

from inf_stream.app import reference as module
from inf_stream.app.reference import LISTS_PATH, PATH, lists, main, reference
from inf_stream.base.config import Settings, load_settings, setting
from inf_stream.cache.policies import POLICIES, make_policy
from inf_stream.models.families import FAMILIES

CONFIGS = sorted(PATH.parent.glob("*.toml"))


def test_committed_files_are_up_to_date() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "run python -m inf_stream.app.reference"
    assert LISTS_PATH.read_text(encoding="utf-8") == lists(), "run python -m inf_stream.app.reference"


def test_every_family_and_policy_is_listed() -> None:
    listed = json.loads(lists())
    assert {kind for family in listed["families"].values() for kind in family["model_types"]} == {
        kind for family in FAMILIES for kind in family.model_types
    }
    assert listed["families"]["Qwen3-VL"] == {"takes": "video and text", "model_types": ["qwen3_vl"]}
    assert listed["families"]["Llama"]["takes"] == "text"
    assert {name: list(policy["options"]) for name, policy in listed["policies"].items()} == {
        name: [field.name for field in dataclasses.fields(policy)] for name, policy in POLICIES.items()
    }


def test_every_setting_has_its_row() -> None:
    page = reference()
    for section in dataclasses.fields(Settings):
        assert f"## `[{section.name}]`" in page
    for name, policy in POLICIES.items():
        assert f"### `{name}`" in page
        for field in dataclasses.fields(policy):
            assert f"| `{field.name}` |" in page


def test_check_reports_and_writing_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATH", tmp_path / "README.md")
    monkeypatch.setattr(module, "LISTS_PATH", tmp_path / "lists.json")
    assert main(["--check"]) == 1
    assert capsys.readouterr().err.count("is out of date; run python -m inf_stream.app.reference\n") == 2
    assert not (tmp_path / "README.md").exists()
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == reference()
    assert (tmp_path / "lists.json").read_text(encoding="utf-8") == lists()


def test_unknown_argument_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["reference", "--cheek"])
    assert main() == 2
    assert "usage:" in capsys.readouterr().err


def test_limits_are_written_out() -> None:
    @dataclasses.dataclass(frozen=True)
    class Example:
        free: bool = setting(True, "no limit")
        least: float = setting(0.5, "a least value", low=1e-4)
        most: int = setting(3, "a most value", high=9)
        both: int = setting(3, "either a|b", low=1, high=1 << 62)
        chosen: str = setting("a", "a choice", choices=("a", "b"))

    rows = module._table(Example).splitlines()[2:]
    assert rows == [
        "| `free` | `true` |  | no limit |",
        "| `least` | `0.5` | from 0.0001 | a least value |",
        "| `most` | `3` | up to 9 | a most value |",
        "| `both` | `3` | 1 to 4611686018427387904 | either a\\|b |",
        '| `chosen` | `"a"` | `a`, `b` | a choice |',
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configuration_loads(path: Path) -> None:
    settings = load_settings(path)
    policy = make_policy(settings.cache.policy, settings.policy)
    assert settings.cache.evict_every_tokens >= policy.window_tokens
    model, device = path.name.removesuffix(".toml").rsplit(".", 1)
    assert settings.model.device == ("cpu" if device == "cpu" else "cuda")
    wanted = {*model.split("-")}
    assert wanted <= {*settings.model.name.lower().removesuffix("-instruct").replace("/", "-").split("-")}


def test_configurations_are_shipped() -> None:
    assert len(CONFIGS) >= 7
