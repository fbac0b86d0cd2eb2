"""Model folders for measuring: real shapes, no download. What they say about pictures means nothing.

    python demos/bench/random_model.py smolvlm-135m OUT

`smolvlm-135m`: the real SmolLM2-135M-Instruct behind a small random vision tower (64 tokens a frame), so that its
language is real and its sight is noise.
`smolvlm-500m`: the shape of SmolVLM2-500M-Video-Instruct's language model behind the same tower; all of it is noise.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from inf_stream.models.weights.pretrained import load_pretrained

IMAGE_TOKENS = ["<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>"]
VISION = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 256,
    "patch_size": 32,
}
PROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "size": {"longest_edge": 256}}


LARGER = {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
}
"""Where the language model of SmolVLM2-500M-Video-Instruct differs from that of 135 million weights."""


def smolvlm(folder: Path, larger: dict[str, int]) -> None:
    """Write the folder as `save_pretrained` does, with the processor; weights of `larger` shapes are random."""
    torch.manual_seed(0)
    text = load_pretrained("smollm2-135m", torch.device("cpu"), torch.bfloat16)
    text.tokenizer.add_special_tokens({"additional_special_tokens": IMAGE_TOKENS})
    text.model.resize_token_embeddings(len(text.tokenizer))
    config = SmolVLMConfig(
        text_config=text.config.to_dict() | larger | {"vocab_size": len(text.tokenizer)},
        vision_config=VISION,
        scale_factor=1,
        image_token_id=text.tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=text.config.eos_token_id,
        tie_word_embeddings=True,
    )
    model = SmolVLMForConditionalGeneration(config).to(torch.bfloat16)
    if not larger:
        model.model.text_model.load_state_dict(text.model.model.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = text.config.eos_token_id
    model.save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


SHAPES: dict[str, dict[str, int]] = {"smolvlm-135m": {}, "smolvlm-500m": LARGER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    smolvlm(args.folder, SHAPES[args.shape])
    print(f"{args.folder}: {sum(f.stat().st_size for f in args.folder.iterdir()) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
