"""Products on Hopper by the kernels in Gluon, where they are exact and fit; chosen by measurements on an H100."""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# The one capability with these instructions.
_MAJOR = 9
# Programs that run at once, two a multiprocessor, and so few that others are faster.
_TOGETHER = 264
_LEAST_PROGRAMS = 100
# Up to so many rows the weight is the left operand.
MOST_ROWS = 128
# Of a workspace what counts the parts that are there, one for each tile.
COUNTERS = 1024

_log = logging.getLogger(__name__)
_known: "dict[torch.device, _Kernels | None]" = {}


def new_workspace(device: torch.device) -> Tensor:
    """Where programs of a product leave parts of sums; products that can run at the same time need different ones."""
    return torch.zeros(COUNTERS + (1 << 22), dtype=torch.int32, device=device)


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
    if kernels is None or not kernels.many.fits(x, w, out):
        return False
    rows, columns, inner = len(x), len(w), x.shape[1]
    if rows <= MOST_ROWS:
        tile = few_tile(rows, columns, inner, shared=workspace is not None)
        if tile is None:
            return False
        tile = kernels.few.FewTile(*tile)
        kernels.few.gemm_few(x, w, scale, bias, out, kind=kind, tile=tile, workspace=workspace, pdl=pdl)
        return True
    tile = kernels.many.HopperTile(*many_tile(rows, columns, kernels.processors, codes=kind == 0))
    kernels.many.gemm_hopper(x, w, scale, bias, out, kind=kind, tile=tile)
    return True


def few_tile(rows: int, columns: int, inner: int, *, shared: bool) -> tuple[int, int, int, int] | None:
    """Rows of the weight, inner dimension, stages and parts, as `FewTile` has them; None: `triton_gemm` is faster.

    Args:
        rows: up to 128.
        columns: N.
        inner: K.
        shared: programs can share rows.
    """
    tiles, blocks = -(-columns // 64), -(-inner // 128)
    most = 6 if rows <= 16 else 3 if rows <= 32 else 1
    parts = max(1, min(_TOGETHER // tiles, most, blocks)) if shared else 1
    if tiles * parts < _LEAST_PROGRAMS:
        return None
    return 64, 128, 6 if rows <= 64 else 4, parts


# Consumers, columns and stages of a tile, with the time that a multiprocessor takes for it, next to the first.
_TILES = ((2, 256, 4, 1.0), (3, 256, 3, 1.5), (3, 128, 4, 0.79), (2, 128, 5, 0.57), (2, 64, 6, 0.42))


def many_tile(rows: int, columns: int, processors: int, *, codes: bool) -> tuple[int, int, int, int, int, int]:
    """Consumers, columns, inner dimension, stages, group and width, as `HopperTile` has them: the tile with the least
    time for the multiprocessor that has most."""

    def time(tile: tuple[int, int, int, float]) -> float:
        consumers, width, _, each = tile
        return -(-(-(-rows // (64 * consumers)) * -(-columns // width)) // processors) * each

    consumers, width, stages, _ = min(_TILES, key=time)
    return (
        consumers,
        width,
        128,
        stages,
        16 if codes else 8,
        (min(width, 128) if consumers == 2 else 64) if codes else 32,
    )


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
            kernels.many.gemm_hopper(*arguments, kind=2, tile=kernels.many.HopperTile(2, 128, 128, 3))
        else:
            workspace = new_workspace(device)
            kernels.few.gemm_few(*arguments, kind=2, tile=kernels.few.FewTile(parts=2), workspace=workspace)
        if not torch.equal(out.cpu(), expected):
            return True
    return False


__all__ = ["COUNTERS", "MOST_ROWS", "few_tile", "many_tile", "multiplied", "new_workspace"]
