"""The model in training: stock LLaVA around our tower and SmolLM2, low-rank updates beside its frozen matrices."""

import math
from pathlib import Path
from typing import Any

import torch
from encoder import pretrained
from features import split_block
from packing import Batch
from safetensors.torch import load_file
from samples import CHAT_TEMPLATE
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from inf_stream.models.weights.grafted import WEIGHTS, llava_around
from inf_stream.models.weights.pretrained import load_pretrained

LANGUAGE_MODEL = "smollm2-135m"
_ROWS = 64
PLACEHOLDER = "<file_sep>"
"""A special token that the language model was never asked to use, in the place of visual tokens."""


class LowRank(nn.Module):
    """A frozen matrix with a trained update of low rank (Hu et al., arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The frozen product plus the update."""
        return self.base(x) + F.linear(F.linear(x, (self.down * self.scale).to(x.dtype)), self.up.to(x.dtype))


class FrozenHeadLoss(torch.autograd.Function):
    """Cross entropy behind a frozen output layer, a few rows at a time: the logits of all never exist at once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        """Losses, and what is needed of their gradient by `hidden`: both from one pass over the logits."""
        losses, gradients = [], []
        for part, wanted in zip(hidden.split(_ROWS), labels.split(_ROWS), strict=True):
            logits = (part @ weight.T).float()
            peak = logits.amax(1, keepdim=True)
            right = logits.gather(1, wanted[:, None])
            powers = logits.sub_(peak).exp_()
            total = powers.sum(1, keepdim=True)
            losses.append((total.log() + peak - right)[:, 0])
            powers.div_(total).scatter_add_(1, wanted[:, None], torch.full_like(right, -1))
            gradients.append(powers.to(weight.dtype) @ weight)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *by_loss: Tensor) -> tuple[Tensor, None, None]:
        """The chain rule."""
        (gradient,) = ctx.saved_tensors
        return (gradient * by_loss[0][:, None]).to(gradient.dtype), None, None


class Network(nn.Module):
    """What is trained: the upper blocks of the tower, the projector, the updates.

    Args:
        variant: of the encoder.
        rank: of the updates.
        cache: where downloads are kept.
        dtype: of the frozen language model.
    """

    def __init__(self, variant: int, rank: int, cache: Path, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        loaded = load_pretrained(LANGUAGE_MODEL, torch.device("cpu"), dtype)
        tower = pretrained(variant, cache).to(memory_format=torch.channels_last)
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self.tokenizer.chat_template = CHAT_TEMPLATE
        self.model = llava_around(loaded.model, tower.config, self.tokenizer.convert_tokens_to_ids(PLACEHOLDER))
        self.model.model.vision_tower = tower
        self.model.requires_grad_(False)
        self.split = split_block(tower)
        projector = self.model.model.multi_modal_projector.to_empty(device="cpu")
        for layer, spread in (
            (projector.linear_1, 0.02),
            (projector.linear_2, 0.08 / projector.linear_2.in_features**0.5),
        ):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
        for part in (*tower.blocks[self.split :], tower.norm, projector):
            part.requires_grad_(True)
        tower.position.requires_grad_(True)
        for layer in self.language_model.layers:
            for block, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
                for name in names:
                    setattr(block, f"{name}_proj", LowRank(getattr(block, f"{name}_proj"), rank, 2 * rank))
        self.model.set_attn_implementation({"text_config": "eager"})

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model.model.language_model

    @property
    def cells(self) -> int:
        """Visual tokens a frame."""
        return int(self.model.config.image_seq_length)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by how fast it may change."""
        model = self.model.model
        return {
            "projector": [
                *model.multi_modal_projector.parameters(),
                *model.vision_tower.norm.parameters(),
                model.vision_tower.position,
            ],
            "encoder": [p for b in model.vision_tower.blocks[self.split :] for p in b.parameters()],
            "language model": [p for p in self.language_model.parameters() if p.requires_grad],
        }

    def visual(self, maps: Tensor) -> Tensor:
        """Visual tokens of pictures from their maps at the first tap: ``[pictures, cells, width]``, float32."""
        tower = self.model.model.vision_tower
        maps = maps.to(memory_format=torch.channels_last)
        tokens = tower.tokens([maps, *tower.maps(maps, first=self.split)])
        return self.model.model.multi_modal_projector(tokens)

    def hidden(self, batch: Batch, maps: Tensor) -> Tensor:
        """Last hidden states, ``[samples * tokens, width]``; `maps` as ``[shown, ...]``."""
        embeds = self.language_model.embed_tokens(batch.ids)
        visual = self.visual(maps).flatten(0, 1).to(embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy(0, batch.visual, visual).view_as(embeds)
        unseen = embeds.new_zeros(batch.mask.shape).masked_fill_(~batch.mask, float("-inf"))
        out = self.language_model(
            inputs_embeds=embeds, attention_mask=unseen[:, None], position_ids=batch.positions, use_cache=False
        )
        return out.last_hidden_state.flatten(0, 1)

    def losses(self, batch: Batch, maps: Tensor) -> Tensor:
        """Negative log likelihood of every target, ``[targets]``, float32."""
        hidden = self.hidden(batch, maps)[batch.targets]
        return FrozenHeadLoss.apply(hidden, self.model.lm_head.weight, batch.labels)

    def load_graft(self, folder: Path) -> None:
        """Begin with what `export.py` wrote, of the same encoder and rank."""
        state = load_file(folder / WEIGHTS)
        for name, part in self.model.named_modules():
            if isinstance(part, LowRank) and f"{name}.down" in state:
                state[f"{name}.down"] = state[f"{name}.down"].float() / part.scale
        found = self.model.load_state_dict({name: weight.float() for name, weight in state.items()}, strict=False)
        if found.unexpected_keys:
            raise SystemExit(f"{folder} holds another model's graft: {found.unexpected_keys[0]} is unknown")

    def trained(self) -> dict[str, Tensor]:
        """Everything that was trained, by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
