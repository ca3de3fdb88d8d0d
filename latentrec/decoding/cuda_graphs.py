"""Decoding steps as CUDA graphs: a step of a deep model is thousands of kernels, which cost more to start
than to run. One graph replays them all.

A graph needs fixed addresses and shapes: the keys and values of prompt and beams stand in slots that are
allocated once, and each step writes its own at the next free ones. Results are those of
:meth:`~latentrec.models.latentr3.LatentR3Model.decode_step`; only what a step costs differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from latentrec.models.latentr3 import DecodingState, KeyValues

STEPS = 24
"""Steps that one graph's slots suffice for; a longer search goes on without graphs."""
BUCKET = 64
"""A prompt's slots are rounded up to a multiple of this, so that few graphs serve all lengths."""
GRAPHS_KEPT = 3


class _SlotCache(DynamicCache):
    """Writes a pass's keys and values into their slots and returns all slots."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], slots_W: Tensor):
        super().__init__()
        self._slots = (layers, slots_W)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layers, slots_W = self._slots
        keys, values = layers[layer_idx]
        keys.index_copy_(2, slots_W, key_states)
        values.index_copy_(2, slots_W, value_states)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._slots[0][layer_idx][0].shape[2], 0


@dataclass(frozen=True)
class GraphState(DecodingState):
    """A state whose keys and values stand in a graph's slots; valid until the graph's next step."""

    used: int = 0
    graph: Any = None

    def rows(self, indices: Tensor) -> DecodingState:
        """The prompts at ``indices``, in memory of their own: what follows runs without the graph."""
        return self.plain().rows(indices)

    def plain(self) -> DecodingState:
        """The same state as one of the model's own."""
        return DecodingState(
            self.logits_BWV, self.key_values, self.visible_BWC, self.positions_B, self.latents_BND
        )


class StepGraph:
    """One decoding step of B rows and W beams over C slots.

    Args:
        model: a :class:`~latentrec.models.latentr3.LatentR3Model`.
        rows, width, slots: B, W, C.
        like: keys of one layer, for heads, size and type.
        capture: record a CUDA graph; otherwise each step is run as it stands (for tests on a CPU).
    """

    def __init__(self, model: Any, rows: int, width: int, slots: int, like: KeyValues, *, capture: bool):
        """Allocate the slots; the graph is captured at the first step."""
        self._backbone, self._capture = model.backbone, capture
        self.rows, self.width, self.slots = rows, width, slots
        device = like.positions_BC.device

        def empty(states: Tensor) -> Tensor:
            return states.new_zeros(rows, states.shape[1], slots, states.shape[3])

        self._layers = [(empty(keys), empty(values)) for keys, values in like.layers]
        self._tokens = torch.zeros(rows, width, dtype=torch.int64, device=device)
        self._positions = torch.zeros(rows, width, dtype=torch.int64, device=device)
        self._allowed = torch.zeros(rows, width, slots, dtype=torch.bool, device=device)
        self._allowed[..., 0] = True
        self._slots_W = torch.arange(width, device=device)
        self._slot_positions = torch.zeros(rows, slots, dtype=torch.int64, device=device)
        self._replay: Callable[[], Any] | None = None
        self._logits: Tensor | None = None

    def load(self, state: DecodingState) -> None:
        """Put the prompts' keys and values into the first slots."""
        used = len(state.key_values)
        for (own_keys, own_values), (keys, values) in zip(self._layers, state.key_values.layers, strict=True):
            own_keys[:, :, :used].copy_(keys)
            own_values[:, :, :used].copy_(values)
        self._slot_positions[:, :used].copy_(state.key_values.positions_BC)

    def step(self, state: DecodingState, used: int, tokens_BW: Tensor, parents_BW: Tensor) -> GraphState:
        """Append one token to each beam; ``used`` slots hold what was read before."""
        width = self.width
        index = parents_BW[..., None].expand(-1, -1, used)
        visible = state.visible_BWC[..., :used].gather(1, index)
        own = torch.eye(width, dtype=torch.bool, device=visible.device).expand(self.rows, -1, -1)
        visible = torch.cat([visible, own], dim=-1)
        self._allowed[..., : used + width].copy_(visible)
        self._allowed[..., used + width :].fill_(False)
        positions = state.positions_B[:, None].expand_as(tokens_BW)
        self._tokens.copy_(tokens_BW)
        self._positions.copy_(positions)
        self._slots_W.copy_(torch.arange(used, used + width, device=visible.device))
        self._slot_positions[:, used : used + width].copy_(positions)
        if self._replay is None:
            self._prepare()
        assert self._replay is not None
        self._replay()
        assert self._logits is not None
        end = used + width
        layers = tuple((keys[:, :, :end], values[:, :, :end]) for keys, values in self._layers)
        return GraphState(
            self._logits,
            KeyValues(layers, self._slot_positions[:, :end]),
            visible,
            state.positions_B + 1,
            state.latents_BND,
            end,
            self,
        )

    def _prepare(self) -> None:
        if not self._capture:
            self._replay = self._run
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self._replay = graph.replay

    def _run(self) -> None:
        self._logits = self._backbone.logits(
            self._backbone.run_on(
                _SlotCache(self._layers, self._slots_W),
                self._backbone.embed(self._tokens),
                self._positions,
                self._allowed,
            )
        )


class GraphedModel:
    """A LatentR³ model whose decoding steps are graphs where they can be; everything else is the model's.

    Args:
        model: in evaluation mode; its weights must stay where they are.
        capture: ``False`` runs the same steps without CUDA graphs (for tests).
    """

    def __init__(self, model: Any, *, capture: bool = True):
        """No graph is made yet."""
        self._model, self._capture = model, capture
        self._graphs: dict[tuple[int, int, int, torch.dtype], StepGraph] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @torch.no_grad()
    def decode_step(self, state: DecodingState, tokens_BW: Tensor, parents_BW: Tensor) -> DecodingState:
        """Same arguments and result as the model's ``decode_step``."""
        rows, width = tokens_BW.shape
        if not isinstance(state, GraphState):
            graph = self._graph_for(state, rows, width)
            if graph is None:
                return self._model.decode_step(state, tokens_BW, parents_BW)
            graph.load(state)
            return graph.step(state, len(state.key_values), tokens_BW, parents_BW)
        graph = state.graph
        if width != graph.width or state.used + width > graph.slots:
            return self._model.decode_step(state.plain(), tokens_BW, parents_BW)
        return graph.step(state, state.used, tokens_BW, parents_BW)

    def _graph_for(self, state: DecodingState, rows: int, width: int) -> StepGraph | None:
        """The graph of this shape; ``None`` in the midst of a search, which began without one."""
        if state.logits_BWV.shape[1] != 1 or not self._model.backbone.has_plain_masks:
            return None
        capacity = -(-len(state.key_values) // BUCKET) * BUCKET + width * STEPS
        key = (rows, width, capacity, state.key_values.layers[0][0].dtype)
        if key not in self._graphs:
            while len(self._graphs) >= GRAPHS_KEPT:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = StepGraph(
                self._model, rows, width, capacity, state.key_values, capture=self._capture
            )
        return self._graphs[key]
