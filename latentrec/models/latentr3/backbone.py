"""Any causal language model of transformers, run one pass at a time over explicit positions and masks.

Composition: nothing here knows an architecture. A backbone is used through four entry points that every
``AutoModelForCausalLM`` has (input embeddings, decoder, output embeddings, configuration), and
:meth:`Backbone.check` proves on a few tokens that they give what the whole model gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentrec.core import UserError
from latentrec.models.latentr3.allowed_tokens import AllowedTokens
from latentrec.models.latentr3.kv_cache import KeyValues, PassCache
from latentrec.models.latentr3.unpadding import ATTENTION, UnpaddedRows

LOGIT_ELEMENTS_AT_ONCE = 2**26
"""Logits held at a time: 256 MB in fp32. More target tokens are scored in pieces, recomputed in backward."""


class Backbone(nn.Module):
    """A causal language model with prefix sharing.

    Attributes:
        model: the ``AutoModelForCausalLM``.
        hidden_size: d.
        vocab_size: V, rows of the output embedding.
        skips_padding: whether passes leave padding out (see :mod:`~latentrec.models.latentr3.unpadding`);
            true with transformers' ``sdpa``, may be switched off.
    """

    def __init__(self, model: Any):
        """Wrap a loaded model; its weights are used in place."""
        super().__init__()
        self.model = model
        self.config = model.config.get_text_config()
        self.hidden_size: int = self.config.hidden_size
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self._n_layers: int = self.config.num_hidden_layers
        if self.config._attn_implementation == "sdpa":
            self.config._attn_implementation = ATTENTION  # the same, and rows without their padding
        self.skips_padding: bool = self.config._attn_implementation == ATTENTION
        kinds = set(getattr(self.config, "layer_types", None) or ["full_attention"])
        if unknown := kinds - {"full_attention", "sliding_attention"}:
            raise UserError(
                f"the backbone '{self.config.model_type}' has {sorted(unknown)[0]} layers, which cannot "
                "share a prompt's keys and values; use one with full or sliding attention (Qwen, Llama…)",
                code="backbone.unsupported",
            )
        self._mixed_layers = "sliding_attention" in kinds
        windowed = self._mixed_layers or not hasattr(self.config, "layer_types")
        self._window: int | None = getattr(self.config, "sliding_window", None) if windowed else None
        self._softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self._checkpointed = False
        self._compiled = False
        self._output: RestrictedOutput | None = None

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, (…, d)."""
        return self.model.get_input_embeddings()(ids)

    def embed_together(self, *ids: Tensor) -> list[Tensor]:
        """Input embeddings of several tensors of ids, by one lookup: in training, one gradient of V × d."""
        flat = self.embed(torch.cat([part.flatten() for part in ids]))
        parts = flat.split([part.numel() for part in ids])
        return [part.view(*own.shape, -1) for part, own in zip(parts, ids, strict=True)]

    def run(
        self,
        embeds_BSD: Tensor,
        positions_BS: Tensor,
        allowed_BSC: Tensor | None,
        prefix: KeyValues | None = None,
        real_BS: Tensor | None = None,
        real_n: Tensor | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """One pass over S new positions that stand on a cached prefix.

        Args:
            embeds_BSD: input embeddings of the new positions.
            positions_BS: rotary positions.
            allowed_BSC: bool, which of the prefix's slots and of the new positions (C = prefix + S) each new
                position may attend to; at least one each. ``None``: plain causal, without prefix.
            prefix: what was read before.
            real_BS: bool, positions that hold tokens (``None``: all). The others are not computed, and what
                is returned there has no meaning.
            real_n: int64, the same positions as indices into (B × S), where they are known on the CPU:
                finding them would wait for the device.

        Returns:
            Hidden states after the final norm (B, S, d), and the keys and values of the new positions.
        """
        real = UnpaddedRows.of(real_BS, real_n) if self.skips_padding else None
        cache = PassCache(prefix, self._n_layers, real)
        mask: Any = None
        if allowed_BSC is not None or self._window is not None:
            mask = self._mask(embeds_BSD, positions_BS, allowed_BSC, prefix)
        inputs = {"inputs_embeds": embeds_BSD, "position_ids": positions_BS, "attention_mask": mask}
        if real is not None:
            inputs["inputs_embeds"], inputs["position_ids"] = real.flat(embeds_BSD), real.flat(positions_BS)
            inputs |= {"unpadded_rows": real, "causal_rows": mask is None}
            if mask is None:  # any mask of four dimensions keeps transformers from making one of n × n
                inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeds_BSD.device)
        output = self.model.get_decoder()(**inputs, past_key_values=cache, use_cache=True)
        hidden = output.last_hidden_state
        return hidden if real is None else real.padded(hidden), cache.recorded(positions_BS)

    @property
    def has_plain_masks(self) -> bool:
        """Whether one boolean mask serves all layers (no sliding windows)."""
        return self._window is None and self.config._attn_implementation == ATTENTION

    def run_on(self, cache: Any, embeds_BSD: Tensor, positions_BS: Tensor, allowed_BSC: Tensor) -> Tensor:
        """One pass over a cache of the caller's (see :mod:`latentrec.decoding.cuda_graphs`); hidden states.

        Arguments as in :meth:`run`; only where :attr:`has_plain_masks`.
        """
        output = self.model.get_decoder()(
            inputs_embeds=embeds_BSD,
            position_ids=positions_BS,
            attention_mask=allowed_BSC[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits in fp32, (…, V); the lowest there is for tokens outside :meth:`restricted_to`."""
        if self._output is None:
            return self._capped(self.model.get_output_embeddings()(hidden))
        logits = self._own_logits(hidden)
        nothing = logits.new_full((*logits.shape[:-1], self.vocab_size), torch.finfo(logits.dtype).min)
        return nothing.index_copy(-1, self._output.tokens_m, logits)

    @contextmanager
    def restricted_to(self, tokens_m: Tensor) -> Iterator[None]:
        """Compute the output layer for these tokens only, while this lasts.

        Exact where every probability is taken among some of them, as in decoding over a catalogue's titles;
        a softmax over the vocabulary becomes one over these tokens.

        Args:
            tokens_m: int64 (m,), ascending, without repeats; every label must be among them.
        """
        layer = self.model.get_output_embeddings()
        before, self._output = self._output, RestrictedOutput.of(layer, tokens_m)
        try:
            yield
        finally:
            self._output = before

    def _own_logits(self, hidden: Tensor) -> Tensor:
        assert self._output is not None
        weight, bias = self._output.rows(self.model.get_output_embeddings())
        return self._capped(F.linear(hidden, weight, bias))

    def _capped(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def token_log_probs(
        self, hidden_nD: Tensor, labels_n: Tensor, choices: AllowedTokens | None = None
    ) -> Tensor:
        """log π(label) of n positions, fp32 (n,); never more than a bounded number of logits at once.

        ``choices``: among what each probability is taken, the label included (``None``: the vocabulary).
        """
        width = self.vocab_size if self._output is None else len(self._output.tokens_m)
        rows = max(1, LOGIT_ELEMENTS_AT_ONCE // width)
        if len(labels_n) <= rows:
            return self._log_probs(hidden_nD, labels_n, choices, 0)
        begins = range(0, len(labels_n), rows)
        pieces = [
            checkpoint(self._log_probs, hidden, labels, choices, begin, use_reentrant=False)
            if torch.is_grad_enabled()
            else self._log_probs(hidden, labels, choices, begin)
            for hidden, labels, begin in zip(hidden_nD.split(rows), labels_n.split(rows), begins, strict=True)
        ]
        return torch.cat(pieces)

    def top_tokens(self, hidden_nD: Tensor) -> Tensor:
        """The likeliest token at each of n positions, (n,)."""
        rows = max(1, LOGIT_ELEMENTS_AT_ONCE // self.vocab_size)
        return torch.cat([self.logits(part).argmax(dim=-1) for part in hidden_nD.split(rows)])

    def enable_checkpointing(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations.

        transformers' own switch drops the cache, which sharing a prompt needs; a layer is wrapped here
        instead, and :class:`PassCache` ignores the second write.
        """
        if self._checkpointed:
            return
        self._checkpointed = True
        for layer in self.model.get_decoder().layers:
            layer.forward = _checkpointed(layer.forward)

    def layer_class(self) -> type[Any]:
        """Class of the decoder's layers."""
        return type(self.model.get_decoder().layers[0])

    def compile_layers(self, backend: str = "inductor") -> None:
        """Fuse what stands between the matrix products of every layer, its norms and feed-forward, by
        ``torch.compile``.

        Layers are alike, so each kind of module is compiled once; lengths are symbolic, so a batch of
        another shape does not compile again. Attention stays as it is: it holds the cache. On an H100 a step
        took a tenth less time and a quarter less memory.
        """
        if self._compiled:
            return
        self._compiled = True
        for layer in self.model.get_decoder().layers:
            for name, module in layer.named_children():
                if name != "self_attn":
                    module.forward = torch.compile(module.forward, dynamic=True, backend=backend)

    def check(self) -> None:
        """Prove on a few tokens that prefix and continuation give the whole model's logits.

        Raises:
            UserError: the architecture does something outside the entry points used here.
        """
        device = self.model.get_input_embeddings().weight.device
        ids = torch.arange(1, 9, device=device)[None] % self.vocab_size
        positions = torch.arange(8, device=device)[None]
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                whole = self.model(input_ids=ids).logits.float()
                embeds = self.embed(ids)
                _, prefix = self.run(embeds[:, :5], positions[:, :5], None)
                allowed = (positions[:, 5:, None] >= positions[:, None, :]).expand(1, 3, 8)
                hidden, _ = self.run(embeds[:, 5:], positions[:, 5:], allowed, prefix)
                shared = self.logits(hidden)
        finally:
            self.train(training)
        scale = whole.abs().max().clamp(min=1.0)
        tolerance = 1e-3 if whole.dtype == torch.float32 and embeds.dtype == torch.float32 else 5e-2
        if not torch.allclose(whole[:, 5:] / scale, shared / scale, atol=tolerance):
            raise UserError(
                f"the backbone '{self.config.model_type}' gives other logits when its prompt is read first; "
                "its architecture is not supported (known to work: Qwen2, Qwen3, Llama, Mistral, Gemma)",
                code="backbone.unsupported",
            )

    def _log_probs(
        self, hidden_nD: Tensor, labels_n: Tensor, choices: AllowedTokens | None, begin: int
    ) -> Tensor:
        tokens_m = None if self._output is None else self._output.tokens_m
        logits = self.logits(hidden_nD) if tokens_m is None else self._own_logits(hidden_nD)
        if choices is not None:
            allowed = choices.mask(begin, begin + len(labels_n), self.vocab_size)
            if tokens_m is not None:
                allowed = allowed.index_select(1, tokens_m)
            logits = logits.masked_fill(~allowed, -torch.inf)
        if tokens_m is not None:
            labels_n = torch.searchsorted(tokens_m, labels_n)
        return -F.cross_entropy(logits, labels_n, reduction="none")

    def _mask(
        self, embeds_BSD: Tensor, positions_BS: Tensor, allowed_BSC: Tensor | None, prefix: KeyValues | None
    ) -> Any:
        key_positions_BC = positions_BS
        if prefix is not None:
            key_positions_BC = torch.cat([prefix.positions_BC, positions_BS], dim=1)
        if allowed_BSC is None:
            allowed_BSC = positions_BS[:, :, None] >= key_positions_BC[:, None, :]
        full = self._format(allowed_BSC, embeds_BSD)
        if self._window is None:
            return full
        near_BSC = positions_BS[:, :, None] - key_positions_BC[:, None, :] < self._window
        sliding = self._format(allowed_BSC & near_BSC, embeds_BSD)
        return {"full_attention": full, "sliding_attention": sliding} if self._mixed_layers else sliding

    def _format(self, allowed_BSC: Tensor, embeds_BSD: Tensor) -> Tensor:
        if self.config._attn_implementation == ATTENTION:
            return allowed_BSC[:, None]
        blocked = torch.finfo(embeds_BSD.dtype).min
        return torch.zeros_like(allowed_BSC, dtype=embeds_BSD.dtype).masked_fill(~allowed_BSC, blocked)[
            :, None
        ]


@dataclass(frozen=True)
class RestrictedOutput:
    """Rows of the output layer that are computed.

    Attributes:
        tokens_m: int64 (m,), ascending.
        weight_mD, bias_m: copies, where nothing learns meanwhile; else they are taken anew at each pass.
    """

    tokens_m: Tensor
    weight_mD: Tensor | None = None
    bias_m: Tensor | None = None

    @classmethod
    def of(cls, layer: Any, tokens_m: Tensor) -> RestrictedOutput:
        """For a layer; copies its rows if no gradient is asked for."""
        tokens_m = tokens_m.to(layer.weight.device)
        made = cls(tokens_m)
        return made if torch.is_grad_enabled() else cls(tokens_m, *made.rows(layer))

    def rows(self, layer: Any) -> tuple[Tensor, Tensor | None]:
        """Weight (m, d) and bias (m,), if there is one."""
        if self.weight_mD is not None:
            return self.weight_mD, self.bias_m
        bias = getattr(layer, "bias", None)
        own = layer.weight.index_select(0, self.tokens_m)
        return own, None if bias is None else bias.index_select(0, self.tokens_m)


def _checkpointed(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    return run
