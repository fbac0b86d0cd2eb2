import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from inf_stream.app import loading
from inf_stream.app.model_names import check_model, with_model
from inf_stream.app.reports import Screen
from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.errors import ModelError
from inf_stream.models.weights.fetch import silent


@pytest.mark.parametrize(
    ("name", "terminal", "shown"),
    [
        ("org/model", True, "loading org/model from the hub\n"),
        ("org/model", False, ""),
        (".", False, ""),
    ],
)
def test_the_hub_draws_its_own_progress_on_a_terminal_only(
    name: str, terminal: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(settings: Settings, progress: object = silent) -> str:
        asked.append(progress is silent)
        return "weights"

    bars: list[bool] = []
    monkeypatch.setattr(loading, "load_weights", load)
    monkeypatch.setattr(loading, "disable_progress_bars", lambda: bars.append(False))
    errors = io.StringIO()
    screen = Screen(io.StringIO(), Console(file=errors, force_terminal=terminal, color_system=None, width=99))
    weights = getattr(loading.load_shown_weights, "__wrapped__", loading.load_shown_weights)
    assert weights(settings_from_mapping({"model": {"name": name}}), screen) == "weights"
    assert errors.getvalue() == shown
    assert asked == [terminal]
    assert bars == ([] if terminal else [False])


@pytest.mark.parametrize(
    ("given", "sees", "taken"),
    [("auto", True, "demo"), ("auto", False, "smollm2-135m"), ("org/model", True, "org/model"), ("", False, "")],
)
def test_a_run_without_a_model_takes_the_built_in_that_suits_it(given: str, sees: bool, taken: str) -> None:
    settings = settings_from_mapping({"model": {"name": given, "device": "cpu"}})
    resolved = with_model(settings, sees=sees)
    assert (resolved.model.name, resolved.model.device) == (taken, "cpu")
    assert resolved.cache is settings.cache


def test_sight_is_asked_of_what_is_known(seeing: Path, reading: Path, tmp_path: Path) -> None:
    for name in (str(seeing), "org/model", "demo"):
        check_model(name, sees=True)
    (tmp_path / "m.GGUF").touch()
    for name in (str(reading), "smollm2-135m", str(tmp_path / "m.GGUF")):
        check_model(name, sees=False)
        with pytest.raises(ModelError, match="reads text only and cannot see video; name one that sees"):
            check_model(name, sees=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "no model is named"),
        ("./nowhere", "model './nowhere' does not exist"),
        ("nowhere.gguf", "model 'nowhere.gguf' does not exist"),
        ("smollm2", "did you mean 'smollm2-135m'?"),
        (".", "folder '.' has no config.json"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_loaded(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=re.escape(said)):
        check_model(name, sees=False)
