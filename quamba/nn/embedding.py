"""Token embeddings: in float, and as codes with a scale for each row."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quamba.errors import RecipeError
from quamba.grids import stored_half
from quamba.nn.state import Kept, register
from quamba.packing import INT4_MAX, pack_int4, unpack_int4
from quamba.primitives import finite
from quamba.qtypes import MIN_SCALE, QMAX, scale_of


class Embedding(nn.Module):
    """The rows of a float table.

    Args:
        weight: float32, bfloat16 or float16 [V, D].
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 [...] to float32 [..., D]."""
        return nn.functional.embedding(input_ids, self.weight).float()


class QEmbedding(nn.Module):
    """The rows of a table as `scale * codes`, max|w| of a row on code 127 (8 bits) or 7 (4 bits).

    Args:
        num_bits: 8 or 4.
        shape: V and D.
        tensors: by name, as `state_dict()` has them:
            codes: int8 [V, D]; 4 bits: uint8 [V, ceil(D / 2)] (`quamba.packing`).
            scale: float32 [V]; 4 bits: float16 [V].

    Raises:
        ModelError: the tensors are not those of such an embedding.
        RecipeError: neither 8 nor 4 bits.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, num_bits: int, shape: tuple[int, int], tensors: Mapping[str, Tensor | None]) -> None:
        super().__init__()
        self.num_bits, self.shape = num_bits, shape
        register(self, f"a {num_bits}-bit embedding", tensors, _kept(num_bits, shape))

    @classmethod
    def quantize(cls, embedding: Embedding, num_bits: int = 8) -> "QEmbedding":
        """Round each weight to the nearest of its row's values, half to even.

        Raises:
            ModelError: the table holds NaN or infinity.
            RecipeError: neither 8 nor 4 bits.
        """
        weight = finite(embedding.weight)
        shape = (weight.shape[0], weight.shape[1])
        _kept(num_bits, shape)
        absmax = weight.abs().amax(dim=1)
        if num_bits == 8:
            qmax, scale = QMAX, scale_of(absmax)
        else:
            # Rounded before use: what is stored is what was used.
            qmax, scale = INT4_MAX, stored_half((absmax / INT4_MAX).clamp(min=MIN_SCALE))
        codes = (weight / scale.float()[:, None]).round_().clamp_(-qmax, qmax).to(torch.int8)
        return cls(num_bits, shape, {"codes": codes if num_bits == 8 else pack_int4(codes), "scale": scale})

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 [...] to float32 [..., D]; only the rows asked for are unpacked."""
        ids = input_ids.reshape(-1)
        codes, scale = self.codes.index_select(0, ids), self.scale.index_select(0, ids).float()
        if self.num_bits == 4:
            codes = unpack_int4(codes, self.shape[1])
        return (codes * scale[:, None]).view(*input_ids.shape, self.shape[1])


def _kept(num_bits: int, shape: tuple[int, int]) -> dict[str, Kept]:
    rows, columns = shape
    if num_bits == 8:
        return {"codes": Kept(torch.int8, ((rows, columns),)), "scale": Kept(torch.float32, ((rows,),))}
    if num_bits == 4:
        return {"codes": Kept(torch.uint8, ((rows, -(-columns // 2)),)), "scale": Kept(torch.float16, ((rows,),))}
    raise RecipeError(f"an embedding of {num_bits} bits cannot be built; use 8 or 4")


__all__ = ["Embedding", "QEmbedding"]
