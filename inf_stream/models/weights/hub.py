"""A model repository of the Hugging Face hub as a local folder, with its failures explained."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from inf_stream.base.errors import ModelError

_IGNORED = ["*/*", "*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "consolidated*"]
"""Other formats of the same weights, and sub-folders with exports."""

_CLIENT_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]
"""Root error of whichever HTTP client this version of the hub library is built on."""


def hub_folder(name: str) -> Path:
    """The newest snapshot of the hub repository `name`, downloaded as far as it is not in the hub's cache.

    Raises:
        ModelError: no such repository, no access to it, no network, or no space.
    """
    try:
        return Path(snapshot_download(name, ignore_patterns=_IGNORED))
    except HFValidationError as error:
        raise ModelError(
            f"model '{name}' is neither a built-in name, a file, a folder nor a hub id: {error}"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"model '{name}' is gated: accept its licence on its hub page, then set HF_TOKEN to your access token"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model '{name}' is not on the hub, or is private; check the name, or set HF_TOKEN to a token "
            "that may "
            "read it"
        ) from error
    except (OSError, _CLIENT_ERROR) as error:
        raise ModelError(
            f"model '{name}' could not be fetched from the hub: {_first_line(error)}; check the name and the "
            "network "
            "(HF_HUB_OFFLINE must be unset), set HF_TOKEN for a gated model, or give a local folder or GGUF "
            "file"
        ) from error


def _first_line(error: BaseException) -> str:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return said.removeprefix("Got: ")
