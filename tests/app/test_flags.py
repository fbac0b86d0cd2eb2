import argparse
import re
from pathlib import Path

import pytest

from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.cli.settings import (
    ENGINE_FLAGS,
    SOURCE_FLAGS,
    Override,
    add_configuration_flags,
    add_setting_flags,
    merge,
    overrides,
)


def parsed(*argv: str) -> list[Override]:
    parser = argparse.ArgumentParser()
    add_setting_flags(parser.add_argument_group("settings"), ENGINE_FLAGS | SOURCE_FLAGS)
    add_configuration_flags(parser)
    return overrides(parser.parse_args(argv), ENGINE_FLAGS | SOURCE_FLAGS)


def test_without_flags_or_file_everything_is_default() -> None:
    assert merge(None, parsed()) == Settings()


def test_a_flag_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[cache]\nbudget_tokens = 300\nchunk_tokens = 32\n[source]\nfps = 2\n")
    settings = merge(file, parsed("--budget", "400"))
    assert (settings.cache.budget_tokens, settings.cache.chunk_tokens) == (400, 32)
    assert settings.source.fps == 2.0
    assert settings.answer == Settings().answer


def test_every_flag_reaches_its_setting() -> None:
    words = ["--model", "m", "--device", "cpu", "--dtype", "float32", "--threads", "1", "--system", "s"]
    words += ["--time-format", "none", "--policy", "tova", "--budget", "64", "--max-tokens", "7"]
    words += ["--temperature", "0.5", "--seed", "3", "--fps", "0.5", "--queue-rule", "wait"]
    made = merge(None, parsed(*words))
    model, cache = made.model, made.cache
    assert (model.name, model.device, model.dtype, model.threads) == ("m", "cpu", "float32", 1)
    assert (model.system_prompt, model.time_format) == ("s", "none")
    assert (cache.policy, cache.budget_tokens) == ("tova", 64)
    assert (made.answer.max_tokens, made.answer.temperature, made.answer.seed) == (7, 0.5, 3)
    assert (made.source.fps, made.source.queue_rule) == (0.5, "wait")


def test_set_reaches_every_section_with_the_type_of_its_value() -> None:
    given = parsed(
        "--set", "cache.chunk_tokens=128", "--set", "model.system_prompt=be brief", "--set", "answer.top_p=1"
    )
    made = merge(None, given + parsed("--set", "policy.window=32", "--set", "policy.separate_heads=true"))
    assert made.cache.chunk_tokens == 128
    assert made.model.system_prompt == "be brief"
    assert made.answer.top_p == 1.0
    assert made.policy == {"window": 32, "separate_heads": True}


def test_a_value_that_is_no_toml_is_a_text() -> None:
    assert merge(None, parsed("--set", "policy.kind=a b")).policy == {"kind": "a b"}


def test_a_number_stays_a_text_where_a_text_is_wanted() -> None:
    assert merge(None, parsed("--set", "model.name=123")).model.name == "123"


def test_options_of_the_file_belong_to_the_policy_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[cache]\npolicy = "inf-mllm"\n[policy]\nwindow = 32\n')
    assert merge(file, parsed("--set", "policy.sinks=2")).policy == {"window": 32, "sinks": 2}
    assert merge(file, parsed("--policy", "tova")).policy == {}
    assert merge(file, parsed("--policy", "h2o", "--set", "policy.recent_share=0.2")).policy == {"recent_share": 0.2}


def test_a_later_override_wins() -> None:
    first = Override("the demo", "cache.budget_tokens", 512)
    assert merge(None, [first, *parsed("--budget", "64")]).cache.budget_tokens == 64
    assert merge(None, [first]).cache.budget_tokens == 512


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "0"), "--budget: cache.budget_tokens is 0; the least allowed is 16"),
        (("--fps", "nan"), "--fps: source.fps is nan; the least allowed is"),
        (("--dtype", "bfloat"), "--dtype: model.dtype is 'bfloat'; did you mean 'bfloat16'"),
        (("--set", "cache.budget_tokens=many"), "cache.budget_tokens is 'many'; an int is expected"),
        (("--set", "cache"), "write it as section.name=value"),
        (("--set", "cache=3"), "write it as section.name=value"),
        (("--set", "cash.budget_tokens=3"), "unknown section 'cash'; did you mean 'cache'"),
        (("--set", "cache.budget=3"), "unknown key 'budget' in cache; did you mean 'budget_tokens'"),
    ],
)
def test_refusals_name_the_flag_and_the_remedy(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(None, parsed(*words))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"), [(("--budget", "x"), "'x' is not a whole number"), (("--fps", "x"), "'x' is not a number")]
)
def test_a_word_where_a_number_belongs(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recall", "64"), "--recall has no effect, since archive.host_mib is 0; add --archive MIB"),
        (("--archive", "0", "--recall", "64"), "--recall has no effect"),
        (("--set", "archive.merge_above=0.9"), "--set archive.merge_above=0.9 has no effect"),
        (
            ("--archive", "64", "--set", "archive.folder=f"),
            "since archive.disk_mib is 0; add --set archive.disk_mib=MIB",
        ),
    ],
)
def test_what_is_said_of_an_archive_that_there_is_not_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        merge(None, parsed(*words))


def test_a_file_may_not_describe_an_archive_that_nobody_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[archive]\nrecall_tokens = 64\n")
    with pytest.raises(ConfigError, match=re.escape(f"archive.recall_tokens in '{file}' has no effect")):
        merge(file, parsed())
    assert merge(file, parsed("--archive", "64")).archive.recall_tokens == 64
    file.write_text('[archive]\nhost_mib = 64\nfolder = "f"\n')
    with pytest.raises(ConfigError, match=re.escape(f"archive.folder in '{file}' has no effect")):
        merge(file, parsed())


def test_an_archive_may_be_switched_off_and_stay_described(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[archive]\nhost_mib = 64\ndisk_mib = 9\nfolder = "f"\nrecall_tokens = 64\n')
    off = merge(file, parsed("--archive", "0", "--set", "archive.disk_mib=0")).archive
    assert (off.host_mib, off.disk_mib, off.recall_tokens) == (0, 0, 64)
    with pytest.raises(ConfigError, match="--recall has no effect"):
        merge(file, parsed("--archive", "0", "--recall", "32"))


def test_a_session_gone_on_with_brings_its_archive_along() -> None:
    base = merge(None, parsed("--archive", "64"))
    assert merge(None, parsed("--recall", "32"), base).archive.recall_tokens == 32


def test_help_comes_from_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "number format of weights and cache (auto, float32, bfloat16, float16) [default: auto]" in shown
    assert "--budget TOKENS" in shown
