"""Write what was trained into the package: the graft that `--model demo` puts on SmolLM2.

python demos/train_demo_model/export.py --work /tmp/demo_model
"""

import argparse
import json
from pathlib import Path

import torch
from encoder import PIXEL_MEAN, PIXEL_STD
from network import LowRank, Network
from safetensors.torch import save_file
from samples import CHAT_TEMPLATE, TIME_FORMAT
from torch import Tensor

from inf_stream.models.weights import builtin
from inf_stream.models.weights.grafted import CONFIG, PROCESSOR, TEMPLATE, WEIGHTS

LIMIT_BYTES = 25_000_000
SHIPPED = Path(builtin.__file__).parent / "demo"


def graft_of(network: Network) -> dict[str, Tensor]:
    """Tower and projector whole, the updates as their two factors; in half precision."""
    model = network.model
    state = {
        name: weight.half()
        for name, weight in model.state_dict().items()
        if name.startswith(("model.vision_tower.", "model.multi_modal_projector."))
    }
    for name, part in model.named_modules():
        if isinstance(part, LowRank):
            state[f"{name}.down"], state[f"{name}.up"] = (part.down * part.scale).bfloat16(), part.up.bfloat16()
    return {name: weight.detach().contiguous() for name, weight in state.items()}


def export(network: Network, folder: Path) -> int:
    """Write the graft's files; returns the size of its weights in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = graft_of(network)
    if wrong := [name for name, weight in state.items() if not torch.isfinite(weight).all()]:
        raise SystemExit(f"{wrong[0]} is not finite in half precision; train with a lower rate")
    size_bytes = sum(weight.nbytes for weight in state.values())
    if size_bytes > LIMIT_BYTES:
        raise SystemExit(f"the graft has {size_bytes:,} bytes, at most {LIMIT_BYTES:,} are shipped; lower --rank")
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    tower = network.model.model.vision_tower.config
    fields = ("model_type", "image_size", "patch_size", "stem_channels", "blocks", "taps")
    config = {
        "model_type": "llava",
        "image_token_index": network.model.config.image_token_index,
        "vision_config": {name: getattr(tower, name) for name in fields},
    }
    edge = {"height": tower.image_size, "width": tower.image_size}
    processor = {
        "size": edge,
        "rescale_factor": 1 / 255,
        "image_mean": [PIXEL_MEAN / 255] * 3,
        "image_std": [PIXEL_STD / 255] * 3,
        "time_format": TIME_FORMAT,
    }
    for name, values in ((CONFIG, config), (PROCESSOR, processor)):
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (folder / TEMPLATE).write_text(CHAT_TEMPLATE, encoding="utf-8")
    return size_bytes


def load_trained(work: Path, encoder: int, rank: int, checkpoint: str = "checkpoint.pt") -> tuple[Network, int]:
    """The network of a checkpoint in eval mode, and the steps it was trained."""
    network = Network(encoder, rank, work)
    kept = torch.load(work / checkpoint, weights_only=True)
    network.load_state_dict(kept["trained"], strict=False)
    return network.eval(), int(kept["step"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder the training was given")
    parser.add_argument("--to", type=Path, default=SHIPPED, help="folder to write into; the package's own if left out")
    parser.add_argument("--encoder", type=int, choices=[0, 1, 2], default=2)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    found, steps = load_trained(args.work, args.encoder, args.rank)
    print(f"{export(found, args.to):,} bytes after {steps} steps in {args.to}")
