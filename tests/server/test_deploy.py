"""What `configs/deploy/` ships: images, a unit and a page that fit the server as it is."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from support.realtime_clients import serving
from support.serving import run_clean

from inf_stream.base.config import ServerSettings, Settings
from inf_stream.cli.main import main
from inf_stream.models.weights.folders import CACHE_VARIABLE
from inf_stream.server import early, running, serve
from inf_stream.server.connections import sockets

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "configs" / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which `inf-stream serve` would have served."""
    found: list[Settings] = []
    monkeypatch.setattr(early, "refuse_early", lambda settings: None)  # files of keys are elsewhere
    monkeypatch.setattr(serve, "serve", lambda settings: found.append(settings) or 0)
    monkeypatch.chdir(ROOT)
    return found


# ---- images ------------------------------------------------------------------------------------------


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its words, on one line; the command of a health check by itself."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line]


def of_kind(path: Path, kind: str) -> list[str]:
    return [words for one, words in instructions(path) if one == kind]


def test_there_are_two_images() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_is_built_from_is_there_and_sent_to_the_builder(path: Path) -> None:
    everything, *kept = [
        line
        for line in path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert everything == "*"
    allowed = [line.removeprefix("!") for line in kept if line.startswith("!")]
    copied = [source for words in of_kind(path, "COPY") for source in words.split()[:-1]]
    assert {"pyproject.toml", "inf_stream", "edge", "configs/constraints.txt"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in allowed), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_holds_what_the_package_says_it_is_made_of(path: Path) -> None:
    """The build reads no file of the project that is not copied before it."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = {"README.md", "LICENSE"}
    assert all(f'"{name}"' in project for name in needed)
    steps = [f"{kind} {words}" for kind, words in instructions(path)]
    build = next(n for n, step in enumerate(steps) if step.startswith("RUN pip install") and step.endswith(" ."))
    before = " ".join(step for step in steps[:build] if step.startswith("COPY"))
    assert all(name in before.split() for name in needed)
    assert all("-c configs/constraints.txt" in step for step in steps if "pip install" in step)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_serves_as_somebody_without_rights(path: Path, asked: list[Settings]) -> None:
    (entry,), (more,) = of_kind(path, "ENTRYPOINT"), of_kind(path, "CMD")
    program, *words = json.loads(entry) + json.loads(more)
    assert program == "inf-stream"
    assert main(words) == 0
    (settings,) = asked
    assert settings.server.host == "0.0.0.0"
    assert settings.server.log_format == "json"
    assert settings.model.device == path.name.partition(".")[0]
    assert of_kind(path, "EXPOSE") == [str(settings.server.port)]
    order = [kind for kind, _ in instructions(path)]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert of_kind(path, "USER") == ["inf-stream"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_models_are_kept_in_the_volume(path: Path) -> None:
    variables = dict(word.split("=", 1) for words in of_kind(path, "ENV") for word in words.split())
    (volume,) = of_kind(path, "VOLUME")
    assert f"--home-dir {volume} " in " ".join(of_kind(path, "RUN"))
    for variable in (CACHE_VARIABLE, "HF_HOME"):
        assert variables[variable].startswith(f"{volume}/")


def test_the_health_check_tells_a_server_that_is_well_from_one_that_is_not() -> None:
    checks = {of_kind(path, "HEALTHCHECK")[0].partition(" CMD ")[2] for path in DOCKERFILES}
    (check,) = checks
    program, *words = json.loads(check)
    assert program == "python"

    async def checked(port: int) -> int:
        mine = [word.replace(":8765/", f":{port}/") for word in words]
        assert mine != words
        done = await asyncio.create_subprocess_exec(sys.executable, *mine, stderr=subprocess.DEVNULL)
        return await done.wait()

    async def run() -> None:
        async with serving() as server:
            assert await checked(server.port) == 0
            server.hub.is_draining = True
            assert await checked(server.port) != 0
        assert await checked(server.port) != 0, "nobody is there"

    run_clean(run())


# ---- the unit ----------------------------------------------------------------------------------------

UNIT = DEPLOY / "inf-stream.service"


def unit() -> dict[str, str]:
    lines = [line for line in UNIT.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_starts_the_server(asked: list[Settings], tmp_path: Path) -> None:
    for shipped in sorted((ROOT / "configs").glob("*.toml")):
        shutil.copy(shipped, tmp_path / "server.toml")
        words = unit()["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", "/run/credentials")
        program, *words = shlex.split(words.replace("/etc/inf-stream/", f"{tmp_path}/"))
        assert program.endswith("/bin/inf-stream")
        assert main(words) == 0
    assert {settings.server.log_format for settings in asked} == {"json"}
    assert {settings.server.keys_file for settings in asked} == {"/run/credentials/keys"}
    assert unit()["LoadCredential"].startswith("keys:")


def test_the_unit_waits_as_long_as_the_server_drains() -> None:
    assert unit()["KillSignal"] == "SIGTERM"
    most_s = ServerSettings().drain_s + sockets._CLOSE_S + running._SHUTDOWN_S
    assert most_s < int(unit()["TimeoutStopSec"]) < most_s + 30


def test_the_unit_has_few_rights() -> None:
    wanted = {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes"}
    assert wanted.items() <= unit().items()
    assert unit()["StateDirectory"] == "inf-stream"
    variables = dict(word.split("=", 1) for word in unit()["Environment"].split())
    assert all(variables[name].startswith("%S/inf-stream") for name in ("HOME", CACHE_VARIABLE, "HF_HOME"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(encoding="utf-8")))
    for words in (["verify"], ["security", "--offline=true", "--threshold=25"]):
        done = subprocess.run(["systemd-analyze", *words, here], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if "unrecognized option" in said:
            pytest.skip("this systemd-analyze judges installed units only")
        assert done.returncode == 0, said
        ours = [line for line in said.splitlines() if UNIT.name in line]
        assert words[0] != "verify" or not ours, "what it says of other units of this machine is not our concern"


# ---- the page ----------------------------------------------------------------------------------------


def test_the_scrape_example_asks_this_server() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (job,) = yaml.safe_load(example)["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == f"{ServerSettings.host}:{ServerSettings.port}"
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["authorization"].get("type", "Bearer") == "Bearer"


def test_the_commands_of_the_page_name_files_that_are_there(asked: list[Settings]) -> None:
    commands = re.sub(r"\\\n\s*", "", "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)))
    names = re.findall(r"(?<![\w/])configs/[\w./-]+", commands)
    assert len(names) >= 6
    assert not [name for name in names if not (ROOT / name).exists()]
    for line in commands.splitlines():
        if line.startswith("docker run"):
            image, flags = re.search(r" inf-stream:(\w+) (.*)", line).groups()  # type: ignore[union-attr]
            path = DEPLOY / f"{image}.Dockerfile"
            assert main([*json.loads(of_kind(path, "ENTRYPOINT")[0])[1:], *shlex.split(flags)]) == 0
            copied = " ".join(of_kind(path, "COPY")).split()
            assert shlex.split(flags)[1] in copied
    assert len(asked) == 2


def test_each_file_is_named() -> None:
    hidden = "*.dockerignore"
    for path in DEPLOY.iterdir():
        assert path.name == "README.md" or fnmatch(path.name, hidden) or f"`{path.name}`" in PAGE


def test_the_messages_of_the_log_are_explained() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "inf_stream" / "server").rglob("*.py")]
    logged = {message for source in sources for message in re.findall(r'_LOG\.\w+\(\s*"([^"]+)"', source)}
    assert len(logged) > 10
    table = PAGE.partition("| message | fields |")[2].partition("## Metrics")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == logged
