"""GPTQ: rounding that lets later input channels make good what earlier ones lost (arXiv 2210.17323).

Input channels are rounded one after the other, and the error of each is spread over those not yet rounded so that the
layer's outputs on the calibration's activations change least. The grid is the one that is really packed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from quamba.errors import DataError
from quamba.granularity import WeightScheme
from quamba.grids import Grid, grids_of, group_grid, groups_of
from quamba.kernels.ops import own_kernel
from quamba.primitives import QuantizedWeight, assemble, finite
from quamba.qtypes import scale_of

# Columns that are updated one by one; all later ones are updated once for the whole block, by a matrix product.
BLOCK = 128
# What is added to a Hessian's diagonal, as a share of its mean. Five times the paper's: on the calibration's own kind
# of text it is as good, on other text the quantized model stays nearer to the float one (KL divergence, 30M weights).
DAMP_FRAC = 0.05
# How often damping is raised tenfold before the Hessian is given up.
_RETRIES = 3


class Hessian:
    """The second moment of a layer's inputs, H = 2/n sum x x^T over n tokens: the Hessian of its squared output error.

    Args:
        in_features: length of x.
        device: where activations will come from.
    """

    def __init__(self, in_features: int, device: torch.device | str = "cpu") -> None:
        self._sum = torch.zeros(in_features, in_features, device=device)
        self.tokens = 0

    def add(self, x: Tensor) -> None:
        """Take in activations, float [..., in]; padding is the caller's to leave out."""
        rows = x.reshape(-1, x.shape[-1]).float()
        self._sum.addmm_(rows.t(), rows)
        self.tokens += len(rows)

    def matrix(self) -> Tensor:
        """H, float32 [in, in].

        Raises:
            DataError: no token came in.
        """
        if not self.tokens:
            raise DataError("a Hessian without tokens: calibrate on at least one document")
        return self._sum * (2 / self.tokens)


def gptq(
    weight: Tensor,
    hessian: Tensor,
    scheme: WeightScheme,
    *,
    blocks: Sequence[int] | None = None,
    damp_frac: float = DAMP_FRAC,
    act_order: bool = False,
) -> QuantizedWeight:
    """Round a weight to its grid with the least squared error of the outputs, as far as one sweep finds it.

    With U the upper Cholesky factor of H^-1, for each input channel j in order: q_j = round(w_j),
    e = (w_j - q_j) / U_jj, and w_k -= e U_jk for all later k (arXiv 2210.17323, algorithm 1). Scales of groups are
    those of the weight as it stands when the group's turn comes; s_ch of W4A8 is max|w| / 127 of the given row.

    Args:
        weight: float [out, in].
        hessian: float32 [in, in], on the weight's device.
        scheme: what to make of it.
        blocks: see `quamba.grids.row_grid`.
        damp_frac: added to H's diagonal, as a share of its mean; tenfold each time H is not positive definite.
        act_order: largest diagonal entries first, with the scales of groups taken from the given weight.

    Returns:
        What `quantize_weight` returns. Channels that no input reaches (diagonal 0) have code 0.

    Raises:
        DataError: H is not finite, or not positive definite however damped.
        ModelError: the weight holds NaN or infinity.
        ValueError: damp_frac is not positive.
    """
    weight = finite(weight).clone()
    in_features = weight.shape[1]
    dead = hessian.diagonal() == 0
    weight[:, dead] = 0
    order = torch.arange(in_features, device=weight.device)
    if act_order:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    U = _inverse_factor(hessian[order][:, order], dead[order], damp_frac)
    columns, positions = weight.t()[order], order.tolist()  # [in, out]
    codes = torch.empty(columns.shape, dtype=torch.int8, device=weight.device)

    channel_scale = scale_of(weight.abs().amax(dim=1)) if scheme.has_two_levels else None
    groups, size = groups_of(scheme, in_features), scheme.group_size or in_features
    as_they_stand = len(groups) > 1 and not act_order
    grids = [] if as_they_stand else grids_of(weight, scheme, channel_scale, blocks)
    for group in groups if as_they_stand else [slice(0, in_features)]:
        if as_they_stand:
            grids.append(group_grid(columns[group].abs().amax(dim=0), channel_scale, whole_row=False))
        for start in range(group.start, group.stop, BLOCK):
            block = slice(start, min(start + BLOCK, group.stop))
            in_block = [grids[position // size] for position in positions[block]]
            codes[order[block]], errors = _round_block(columns[block], U[block, block], in_block)
            columns[block.stop :].addmm_(U[block, block.stop :].t(), errors, alpha=-1)
    return assemble(scheme, codes.t().contiguous(), grids)


def _round_block(columns: Tensor, U: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, Tensor]:
    """Round input channels [b, out], each to its grid: int8 codes [b, out] and errors [b, out]; changes `columns`."""
    kernel = own_kernel("triton_round_block", columns.device.type)
    if kernel is not None:
        # By identity: grids are those of groups.
        distinct = {grid: number for number, grid in enumerate(dict.fromkeys(grids))}
        which = torch.tensor([distinct[grid] for grid in grids], dtype=torch.int32).to(columns.device)
        scales = torch.stack([grid.scale for grid in distinct])
        found: tuple[Tensor, Tensor] = kernel.round_block(
            columns, U, scales, grids[0].channel_scale, which, (grids[0].qmin, grids[0].qmax)
        )
        return found
    codes, errors = torch.empty_like(columns, dtype=torch.int8), torch.empty_like(columns)
    for j, grid in enumerate(grids):
        q = grid.codes(columns[j])
        codes[j] = q
        errors[j] = (columns[j] - grid.values(q)) / U[j, j]
        columns[j + 1 :].addr_(U[j, j + 1 :], errors[j], alpha=-1)
    return codes, errors


def _inverse_factor(hessian: Tensor, dead: Tensor, damp_frac: float) -> Tensor:
    """U, float32 [in, in] upper, with U^T U = (H + damping)^-1.

    From H = R R^T with R upper, which is a Cholesky factor read from the end, U = R^-1: H is never inverted itself.
    """
    if not damp_frac > 0:
        raise ValueError(f"damp_frac must be above 0, not {damp_frac}; use 0.01")
    if not bool(torch.isfinite(hessian).all()):
        raise DataError("the Hessian is not finite: the activations of the calibration overflow")
    # In float64, where even the condition number of a Hessian barely damped leaves digits enough.
    H = hessian.double().flip(0, 1)
    diagonal, dead = H.diagonal(), dead.flip(0)
    mean = diagonal[~dead].mean() if bool((~dead).any()) else diagonal.new_ones(())
    diagonal[dead] = 1
    eye = torch.eye(len(H), dtype=H.dtype, device=H.device)
    for retry in range(_RETRIES + 1):
        damping = damp_frac * 10**retry
        factor, failed = torch.linalg.cholesky_ex(H + damping * mean * eye)
        if not int(failed):
            U: Tensor = torch.linalg.solve_triangular(factor.flip(0, 1), eye, upper=True)
            return U.float()
    raise DataError(
        f"the Hessian of {len(H)} inputs is not positive definite, not even with {damping:g} times the mean of its "
        "diagonal added: calibrate on more documents"
    )


__all__ = ["BLOCK", "DAMP_FRAC", "Hessian", "gptq"]
