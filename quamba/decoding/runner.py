"""Single tokens of a quantized model by the fused kernels, replayed from a CUDA graph for each batch size."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quamba.decoding.float_mamba1 import FloatMamba1Layer
from quamba.decoding.float_mamba2 import FloatMamba2Layer
from quamba.decoding.halves import HalfProduct, Room, half_product, multiply_half
from quamba.decoding.mamba1 import Mamba1Layer
from quamba.decoding.mamba2 import Mamba2Layer
from quamba.decoding.plan import NotFusedError, Product, product, state_scale
from quamba.decoding.products import Before, multiply
from quamba.decoding.trial import Replay, faster, replay_seconds
from quamba.kernels.hopper import MOST_ROWS, new_workspace
from quamba.kernels.launch import Launch
from quamba.kernels.triton_embed import embed
from quamba.kernels.triton_gemv import FLOAT
from quamba.nn.cache import Cache
from quamba.nn.embedding import Embedding, QEmbedding
from quamba.nn.linear import QLinear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.model import Layer, MambaLM

_log = logging.getLogger(__name__)

FloatLayer = FloatMamba1Layer | FloatMamba2Layer
FusedLayer = Mamba1Layer | Mamba2Layer | FloatLayer


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A whole model as the kernels read it.

    Attributes:
        model: what it was made of.
        table: of the embedding, int8 or float32 [V, D], or of 4-bit codes.
        table_scale: [V] for codes.
        layers: in order.
        head: of codes or of floats, or None: the model's own norm and head run.
        state_scales: of each layer, as a cache has them; None of a state of floats.
    """

    model: MambaLM
    table: Tensor
    table_scale: Tensor | None
    layers: Sequence[FusedLayer]
    head: Product | HalfProduct | None
    state_scales: Sequence[Tensor | None]

    @property
    def of_floats(self) -> bool:
        """Whether no layer has 8-bit activations."""
        return all(isinstance(layer, FloatLayer) for layer in self.layers)

    @classmethod
    def of(cls, model: MambaLM) -> "Plan":
        """From its modules.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        embedding = model.embedding
        if isinstance(embedding, QEmbedding):
            table, scale = embedding.codes, embedding.scale
        elif isinstance(embedding, Embedding):
            table, scale = embedding.weight, None
        else:
            raise NotFusedError(f"a {type(embedding).__name__} is no embedding that is known")
        if model.config.d_model % 16:
            raise NotFusedError(f"d_model {model.config.d_model} is no multiple of 16")
        parts = [layer for layer in model.layers if isinstance(layer, Layer)]
        layers = [_layer(layer) for layer in parts]
        scales = [
            None if isinstance(layer, FloatLayer) else state_scale(part.mixer)
            for layer, part in zip(layers, parts, strict=True)
        ]
        return cls(model, table, scale, layers, _head(model.lm_head), scales)


def _layer(layer: Layer) -> FusedLayer:
    projection = getattr(layer.mixer, "in_proj", None)
    floats = isinstance(projection, QLinear) and projection.in_scale is None
    if isinstance(layer.mixer, Mamba1Mixer):
        return FloatMamba1Layer.of(layer) if floats else Mamba1Layer.of(layer)
    return FloatMamba2Layer.of(layer) if floats else Mamba2Layer.of(layer)


def _head(part: nn.Module) -> Product | HalfProduct | None:
    if not isinstance(part, QLinear):
        return None
    if part.in_scale is not None:
        return product(part, "lm_head", coded=False)
    try:
        return half_product(part, "lm_head")
    except NotFusedError:
        return None


class DecodeRunner:
    """One step of one batch size, with fixed buffers.

    Args:
        plan: the model.
        batch: rows; fewer can be used.
        how: to launch.
        graph: capture the launches, and replay them from then on.
    """

    def __init__(self, plan: Plan, batch: int, how: Launch, *, graph: bool) -> None:
        device = plan.model.device
        # Of this runner's own: graphs may be replayed side by side.
        shared = new_workspace(device) if device.type == "cuda" and 1 < batch <= MOST_ROWS else None
        self.plan, self.batch, self.how = plan, batch, replace(how, workspace=shared)
        # -1 is no device: nothing changes.
        self._device = device if device.type == "cuda" else -1
        self.ids = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int32, device=device)
        self.residual = torch.zeros(batch, plan.model.config.d_model, device=device)
        self.logits = torch.zeros(batch, plan.model.padded_vocab_size, device=device)
        self.memory = [layer.memory(batch) for layer in plan.layers]
        # Layers of a kind share theirs.
        self.scratch: dict[type, Any] = {type(layer): layer.scratch(batch, how) for layer in plan.layers}
        self.normed = torch.zeros(batch, plan.model.config.d_model, dtype=torch.int8, device=device)
        self._room = Room.of(batch, plan.model.config.d_model, how, device)
        self._time = 0
        self._replay: Replay = self.launch
        self.load(plan.model.new_cache(batch))
        if graph:
            self._replay = self._captured()
            if batch <= how.few and any(isinstance(layer, Mamba1Layer) for layer in plan.layers):
                self._replay = self._tried(self._replay)

    def load(self, cache: Cache) -> None:
        """Take over what a cache remembers."""
        for memory, layer in zip(self.memory, cache.layers, strict=True):
            memory.load(layer)
        self._time = self.plan.model.config.d_conv - 1
        # The step itself counts.
        self.position.fill_(self._time - 1)

    def store(self, batch: int) -> Cache:
        """A cache of the first rows."""
        layers = []
        for memory, scale in zip(self.memory, self.plan.state_scales, strict=True):
            layers.append(memory.store(batch, self._time, scale))
        return Cache(layers)

    def step(self, input_ids: Tensor) -> Tensor:
        """One more token a row, int64 [Bt]; logits float32 [Bt, V], overwritten by the next step."""
        # Launches go to the current device, whatever tensors they have.
        with torch.cuda.device(self._device):
            self.ids[: len(input_ids)].copy_(input_ids)
            self._replay()
        self._time += 1
        return self.logits[: len(input_ids)]

    def launch(self) -> None:
        """All kernels of a step, in order."""
        plan, how = self.plan, self.how
        embed(self.ids, self.position, plan.table, plan.table_scale, self.residual)
        for layer, memory in zip(plan.layers, self.memory, strict=True):
            layer.launch(self.residual, self.position, memory, self.scratch[type(layer)], how)
        self._head()

    def _head(self) -> None:
        norm, head, how = self.plan.model.norm_f, self.plan.head, self.how
        if head is None:
            self.logits.copy_(self.plan.model.lm_head(norm(self.residual)))
        elif isinstance(head, HalfProduct):
            multiply_half(head, self.residual, self._room, self.logits, FLOAT, how, (norm.weight, norm.eps))
        else:
            multiply(head, self.residual, self.logits, FLOAT, how, Before(norm.weight, norm.eps, self.normed))

    def _captured(self) -> Replay:
        with torch.cuda.device(self.residual.device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
            stream.wait_stream(torch.cuda.current_stream())
            # Compiles and loads every kernel, which cannot be done while capturing.
            with torch.cuda.stream(stream):
                self.launch()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.launch()
        self.load(self.plan.model.new_cache(self.batch))
        replay: Replay = graph.replay
        return replay

    def _tried(self, plain: Replay) -> Replay:
        """A step whose launches are fewer by one a layer, where it is the faster one here; else `plain`."""
        how = self.how
        self.how = replace(how, chained=True)
        try:
            other = self._captured()
            with torch.cuda.device(self.residual.device):
                chosen = faster(plain, other, self._outcome, replay_seconds)
        except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
            message = "%s: x_proj has a launch of its own in Mamba-1's steps, as it fails in in_proj's"
            _log.warning(message, " ".join(f"{type(error).__name__} {error}".split())[:200])
            chosen = plain
        self.load(self.plan.model.new_cache(self.batch))
        if chosen is plain:
            self.how = how
        return chosen

    def _outcome(self, replay: Replay) -> Tensor:
        """Logits of a few steps from the beginning."""
        self.load(self.plan.model.new_cache(self.batch))
        logits = []
        for token in range(3):
            self.ids.fill_(token)
            replay()
            logits.append(self.logits.clone())
        return torch.stack(logits)


__all__ = ["DecodeRunner", "FloatLayer", "FusedLayer", "Plan"]
