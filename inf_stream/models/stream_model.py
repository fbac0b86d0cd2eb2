"""A transformers model as the engine sees it: embed, encode, forward against a cache, logits."""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from inf_stream.base.grid import padded_tokens
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import Table
from inf_stream.models import attention
from inf_stream.models.attention import AttentionStep, StepsTogether
from inf_stream.models.chunk import Chunk, VisualTokens
from inf_stream.models.families import Family, family_of
from inf_stream.models.template import TurnTemplate, turn_template
from inf_stream.models.weights.loaded import LoadedWeights

_FINGERPRINT_NUMBERS = 16


class StreamModel:
    """One loaded model of a supported family, its text part attending through `inf_stream.models.attention`.

    `frame_tokens` is the most visual tokens a frame may take; None leaves it to the family.

    Raises:
        ModelError: the model's family is not supported, or its checkpoint lacks what its frames need.
        ConfigError: `frame_tokens` is less than the family can do with.
    """

    def __init__(self, weights: LoadedWeights, *, system_prompt: str = "", frame_tokens: int | None = None):
        self.weights = weights
        self.tokenizer = weights.tokenizer
        self.family: Family = family_of(weights.config)
        attention.register()
        text_config = self.family.text_config(weights.config)
        is_text_model = text_config is weights.config
        weights.model.set_attn_implementation(
            attention.IMPLEMENTATION if is_text_model else {"text_config": attention.IMPLEMENTATION}
        )
        self._decoder = self.family.decoder(weights.model)
        self._embed = weights.model.get_input_embeddings()
        kinds = self.family.layer_kinds(text_config)
        self._kinds = tuple(dict.fromkeys(kinds))
        self.layout = self._make_layout(kinds)
        self.vision = self.family.vision(weights, frame_tokens)
        self.turns: TurnTemplate = turn_template(weights.tokenizer, system_prompt)
        self.stop_ids = self._stop_ids()
        self._fingerprint: str | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.layout.device

    @torch.inference_mode()
    def embed(self, ids: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens width"]:
        """Embeddings of token ids."""
        return self._embed(ids.to(self.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, pixels: UInt8[Tensor, "frames height width 3"]) -> list[VisualTokens]:
        """Encode frames of the size `vision.frame_size` asks for."""
        assert self.vision is not None, "frames need a model that sees"
        return self.vision.encode(pixels.to(self.device))

    @torch.inference_mode()
    def forward(self, chunk: Chunk, step: AttentionStep) -> Float[Tensor, "tokens width"]:
        """Run the language model over new tokens; returns their last hidden states.

        The chunk is padded to one of a few lengths (`inf_stream.base.grid`); the step leaves the padding out.
        """
        return self._forward(chunk, step, padded_tokens(len(chunk)))

    @torch.inference_mode()
    def forward_together(
        self, chunks: Sequence[Chunk], steps: Sequence[AttentionStep]
    ) -> list[Float[Tensor, "tokens width"]]:
        """`forward` for short chunks of several streams in one pass over the weights, each with its own step."""
        lengths = [len(chunk) for chunk in chunks]
        rows = 1 << (sum(lengths) - 1).bit_length()
        hidden = self._forward(Chunk.concatenate(list(chunks)), StepsTogether(steps, lengths), rows)
        return list(torch.split(hidden, lengths))

    def _forward(self, chunk: Chunk, step: AttentionStep, rows: int) -> Float[Tensor, "tokens width"]:
        tokens = len(chunk)
        shape = (3, 1, rows) if self.layout.segmented else (1, rows)
        extra: dict[str, object] = {}
        if chunk.deepstack is not None and chunk.deepstack.shape[1]:
            extra["visual_pos_masks"] = pad(chunk.tags.visual > 0, (0, rows - tokens)).to(self.device)[None]
            extra["deepstack_visual_embeds"] = list(chunk.deepstack)
        out = self._decoder(
            inputs_embeds=pad(chunk.embeds, (0, 0, 0, rows - tokens))[None],
            position_ids=torch.zeros(shape, dtype=torch.int64, device=self.device),
            use_cache=False,
            stream_step=step,
            **extra,
        )
        return out.last_hidden_state[0, :tokens]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits for the token after each hidden state, float32."""
        return self.family.logits(self.weights.model, hidden)

    @torch.inference_mode()
    def rotation(self, positions: Int[Tensor, "axes rows tokens"]) -> tuple[Table, ...]:
        """Rotation tables for positions, one per kind of layer (`inf_stream.base.rotation.RotationTables`)."""
        like = torch.empty(0, dtype=self.layout.dtype, device=self.device)
        return self.family.tables(self._decoder, self._kinds, positions, like)

    def ids(self, text: str) -> Int[Tensor, "tokens"]:
        """Token ids of text, special tokens in it understood, none added."""
        found: Sequence[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(found, dtype=torch.int64)

    def opening_ids(self) -> Int[Tensor, "tokens"]:
        """Token ids that open every stream: the system prompt, and the beginning-of-text token if the model has one."""
        ids = self.ids(self.turns.opening)
        default: Sequence[int] = self.tokenizer("")["input_ids"]
        first = self.tokenizer.bos_token_id
        wants_first = first is not None and list(default[:1]) == [first]
        if wants_first and ids[:1].tolist() != [first]:
            ids = torch.cat((torch.tensor([first]), ids))
        return ids

    def fingerprint(self) -> str:
        """Tells these weights from others without reading all of them: names, shapes, format, and a piece of each."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, weight in sorted(self.weights.model.state_dict().items()):
                piece = weight.flatten()[:: max(1, weight.numel() // _FINGERPRINT_NUMBERS)][:_FINGERPRINT_NUMBERS]
                digest.update(json.dumps([name, list(weight.shape), str(weight.dtype)]).encode())
                digest.update(piece.float().cpu().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the model's own, and the one that closes its turn in the template."""
        generation = getattr(self.weights.model, "generation_config", None)
        listed = getattr(generation, "eos_token_id", None)
        ids = {listed} if isinstance(listed, int) else set(listed or ())
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        closing = self.ids(self.turns.again)[:1].tolist()
        return frozenset(ids | (set(closing) & set(self.tokenizer.all_special_ids)))

    def _make_layout(self, kinds: tuple[str, ...]) -> CacheLayout:
        config = self.family.text_config(self.weights.config)
        heads = int(config.num_attention_heads)
        weight = self._embed.weight
        return CacheLayout(
            layers=int(config.num_hidden_layers),
            query_heads=heads,
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            sliding_windows=self.family.sliding_windows(config),
            table_of_layer=tuple(self._kinds.index(k) for k in kinds),
            segmented=self.family.segmented,
            bidirectional_frames=self.family.bidirectional_frames,
            dtype=weight.dtype,
            device=weight.device,
        )
