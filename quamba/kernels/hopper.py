"""Products on Hopper by the kernels in Gluon, where they are exact and fit."""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quamba.kernels.hopper_tiles import COUNTERS, FewTile, HopperTile, few_tile, many_tile

# The one capability with these instructions.
_MAJOR = 9
# Up to so many rows the weight is the left operand.
MOST_ROWS = 128

_log = logging.getLogger(__name__)
_known: "dict[torch.device, _Kernels | None]" = {}


def new_workspace(device: torch.device) -> Tensor:
    """Where programs of a product leave parts of sums; products that can run at the same time need different ones."""
    return torch.zeros(COUNTERS + (1 << 22), dtype=torch.int32, device=device)


def _fits(x: Tensor, w: Tensor, out: Tensor) -> bool:
    """Whether the accelerator reads such tensors: their rows begin at whole 16 bytes."""
    whole = not (x.data_ptr() | w.data_ptr() | out.data_ptr() | x.stride(0) | w.shape[1]) % 16
    return whole and x.stride(1) == 1 and w.is_contiguous() and out.is_contiguous()


def multiplied(
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    pdl: bool,
    workspace: Tensor | None,
) -> bool:
    """Whether the product has been launched; arguments as `quamba.kernels.triton_gemm.gemm`."""
    if x.is_cuda and x.device not in _known and not torch.cuda.is_current_stream_capturing():
        _known[x.device] = _kernels(x.device)
    kernels = _known.get(x.device)
    if kernels is None or not _fits(x, w, out):
        return False
    rows, columns, inner = len(x), len(w), x.shape[1]
    if rows <= MOST_ROWS:
        tile = few_tile(rows, columns, inner, shared=workspace is not None)
        if tile is None:
            return False
        kernels.few.gemm_few(x, w, scale, bias, out, kind=kind, tile=tile, workspace=workspace, pdl=pdl)
        return True
    many = many_tile(rows, columns, kernels.processors, codes=kind == 0)
    kernels.many.gemm_hopper(x, w, scale, bias, out, kind=kind, tile=many)
    return True


@dataclass(frozen=True, slots=True)
class _Kernels:
    """The modules with them, and the device's multiprocessors."""

    many: Any
    few: Any
    processors: int


def _kernels(device: torch.device) -> _Kernels | None:
    properties = torch.cuda.get_device_properties(device)
    if properties.major != _MAJOR:
        return None
    try:
        many, few = (importlib.import_module(f"quamba.kernels.{name}") for name in ("gluon_gemm", "gluon_few"))
        kernels = _Kernels(many, few, properties.multi_processor_count)
        wrong = _wrong(kernels, device)
    except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
        _log.warning(
            "Hopper's own products are not used, as they fail here (%s: %s): others run, slower",
            type(error).__name__,
            " ".join(str(error).split())[:200],
        )
        return None
    if wrong:
        _log.warning("Hopper's own products are not used, as they are wrong here: others run, slower")
        return None
    return kernels


def _wrong(kernels: _Kernels, device: torch.device) -> bool:
    """Whether a product of either kind is not what it has to be."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randint(-128, 128, (n, 272), dtype=torch.int8, generator=generator) for n in (200, 144))
    scale = torch.rand(144, generator=generator)
    for rows in (200, 20):
        expected = (x[:rows].double() @ w.double().t()).float() * scale
        out = torch.zeros(rows, 144, device=device)
        arguments = x[:rows].to(device), w.to(device), scale.to(device), None, out
        if rows > MOST_ROWS:
            kernels.many.gemm_hopper(*arguments, kind=2, tile=HopperTile(2, 128, 128, 3))
        else:
            workspace = new_workspace(device)
            kernels.few.gemm_few(*arguments, kind=2, tile=FewTile(parts=2), workspace=workspace)
        if not torch.equal(out.cpu(), expected):
            return True
    return False


__all__ = ["MOST_ROWS", "multiplied", "new_workspace"]
