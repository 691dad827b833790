"""The kernels that watch tensors, each against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels import triton_select
from quamba.kernels.triton_extremes import block_tokens, extremes, extremes_reference
from quamba.kernels.triton_gather_tail import gather_tail, gather_tail_reference
from quamba.kernels.triton_select import select, select_reference, threshold
from tests.quamba.kernel_device import DEVICE, REAL

SHAPES = [
    pytest.param((2, 5, 96), [5, 3], id="small"),
    pytest.param((1, 70, 200), None, id="whole"),
    pytest.param((3, 4, 1300), [4, 1, 2], id="states"),
    pytest.param((32, 512, 2048), None, id="real", marks=REAL),
    pytest.param((5, 300, 2049), [300, 299, 1, 17, 32], id="odd", marks=REAL),
    pytest.param((32, 4, 32768), [4] * 31 + [2], id="real states", marks=REAL),
]


def lengths_of(lengths: list[int] | None) -> Tensor | None:
    return None if lengths is None else torch.tensor(lengths, device=DEVICE)


def values_of(shape: tuple[int, ...]) -> Tensor:
    """With ties, and a channel that stands out."""
    x = torch.randn(shape, device=DEVICE)
    x = torch.where(x.abs() < 0.5, (x * 8).round() / 8, x)
    x[..., 3] *= 50
    return x


@pytest.mark.parametrize(("shape", "lengths"), SHAPES)
@pytest.mark.parametrize("fold", [1, 8])
def test_extremes(shape: tuple[int, int, int], lengths: list[int] | None, fold: int) -> None:
    """Extremes go on from what they were; blocks are those of the columns asked for; padding is not looked at."""
    rows, tokens, channels = shape
    counts, x = lengths_of(lengths), values_of(shape)
    columns = (16, (channels - 16) // 8 * 8)
    results = []
    for function in (extremes, extremes_reference):
        low = torch.full((channels,), torch.inf, device=DEVICE)
        high = torch.full((channels,), -torch.inf, device=DEVICE)
        low[0], high[1] = -1e9, 1e9
        maxima = torch.full((rows, -(-tokens // block_tokens(tokens)), columns[1] // fold), -7.0, device=DEVICE)
        function(x, counts, low, high, maxima=maxima, columns=columns, fold=fold)
        function(x * 0.5, counts, low, high)
        results.append((low, high, maxima))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


def test_what_is_no_number_is_seen() -> None:
    """A NaN makes the largest value of its channel infinite for good; other channels are as they are."""
    x = torch.randn(1, 40, 130, device=DEVICE)
    low, high = (torch.full((130,), value, device=DEVICE) for value in (torch.inf, -torch.inf))
    with_nan = x.clone()
    with_nan[0, 33, 5] = torch.nan
    extremes(with_nan, None, low, high)
    extremes(x, None, low, high)
    assert high.isinf().nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize(
    ("rows", "columns", "tails"),
    [
        pytest.param(2, 300, [17, 5, 1, 300, 2], id="whole"),
        pytest.param(3, 700, [40, 1], id="in parts"),
        pytest.param(32, 32768, [10486, 525, 1, 2], id="real", marks=REAL),
        pytest.param(8, 200001, [30000, 525, 1, 2], id="long", marks=REAL),
    ],
)
def test_select(rows: int, columns: int, tails: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Order statistics are exact, ties and all; what is negative does not count, nor what lies behind the size."""
    if columns == 700:
        monkeypatch.setattr(triton_select, "_WHOLE", 300)
        monkeypatch.setattr(triton_select, "_CHUNK", 256)
    values = values_of((rows, columns)).abs()
    sizes = torch.full((rows,), columns, dtype=torch.int32, device=DEVICE)
    sizes[0] -= 0 if max(tails) == columns else 3
    values[0, sizes[0] :] = 1e9
    wanted = torch.tensor([tails] * rows, dtype=torch.int32, device=DEVICE)
    results = []
    for function in (select, select_reference):
        out = torch.zeros(rows, len(tails), 2, device=DEVICE)
        failed = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        function(values, sizes, wanted, out, failed)
        assert not int(failed)
        results.append(out)
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [299, 5])
def test_a_row_without_its_rank_is_told(size: int) -> None:
    """A size beyond the row, or below a rank, sets the mark."""
    sizes = torch.tensor([size], dtype=torch.int32, device=DEVICE)
    failed = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    tails = torch.tensor([[6, 1]], dtype=torch.int32, device=DEVICE)
    select(torch.rand(1, 200, device=DEVICE), sizes, tails, torch.zeros(1, 2, 2, device=DEVICE), failed)
    assert int(failed) == 1


@pytest.mark.parametrize(("shape", "lengths"), SHAPES)
def test_a_tail_is_gathered(shape: tuple[int, int, int], lengths: list[int] | None) -> None:
    """Behind the threshold of the largest blocks lie all elements of a tail, each of them once."""
    rows, tokens, channels = shape
    counts, x = lengths_of(lengths), values_of(shape)
    low, high = (torch.zeros(channels, device=DEVICE) for _ in range(2))
    maxima = torch.empty(rows, -(-tokens // block_tokens(tokens)), channels, device=DEVICE)
    extremes_reference(x, counts, low, high, maxima=maxima, columns=(0, channels))
    tails = torch.full((rows, 1), 40, dtype=torch.int32, device=DEVICE)
    least, sizes = torch.empty(rows, device=DEVICE), torch.full((rows,), 9, dtype=torch.int32, device=DEVICE)
    threshold(maxima.flatten(1), tails, least, sizes)
    results = []
    for function in (gather_tail, gather_tail_reference):
        taken, found = sizes.clone(), torch.full((rows, 1 << 14), -1.0, device=DEVICE)
        function(x, counts, least, taken, found)
        results.append((taken, found.sort().values))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
    together = []
    for function in (gather_tail, gather_tail_reference):
        taken, found = torch.tensor([7], device=DEVICE), torch.full((1, 1 << 18), -1.0, device=DEVICE)
        function(x, counts, least.amin()[None], taken, found, together=True)
        together.append((taken, found.sort().values))
    for found, expected in zip(*together, strict=True):
        assert torch.equal(found, expected)
    assert bool((sizes == 0).all())
    assert bool((results[0][0] >= 40).all())
    best = maxima.flatten(1).sort(descending=True).values[:, 39]
    assert bool((least <= best.clamp(min=0)).all())
    assert bool((least >= best.clamp(min=0) * (1 - 2**-7)).all())
