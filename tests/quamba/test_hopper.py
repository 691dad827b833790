"""Which of Hopper's own products run, and what they compute on such a GPU."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.hopper import MOST_ROWS, multiplied, new_workspace
from quamba.kernels.hopper_tiles import COUNTERS, few_tile, many_tile
from quamba.kernels.triton_gemm import gemm, gemm_reference
from quamba.kernels.triton_gemv import ADD, CODES, FLOAT

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
# Bytes that a program can have, but for what barriers and such take.
SHARED = 227 * 1024 - 512
SHAPES = [(10576, 2560), (2560, 5120), (50288, 2560), (3352, 768), (768, 1536), (192, 5120), (5120, 160)]


@pytest.mark.parametrize(("columns", "inner"), SHAPES)
def test_tiles_fit_a_multiprocessor(columns: int, inner: int) -> None:
    """Two programs of few rows, one of many; parts of sums fit their workspace."""
    for rows in range(1, MOST_ROWS + 1):
        tile = few_tile(rows, columns, inner, shared=True)
        if tile is not None:
            width, step, stages, parts = tile.rows, tile.inner, tile.stages, tile.parts
            block = max(8, 1 << (rows - 1).bit_length())
            assert (1 if rows > 64 else 2) * stages * (width + block) * step <= SHARED
            assert 1 <= parts <= -(-inner // step)
            tiles = -(-columns // width)
            assert parts == 1 or tiles <= COUNTERS
            assert parts == 1 or tiles * parts * width * block <= 1 << 22
    for rows in (129, 200, 256, 1000, 1024, 5000, 16384, 100_000):
        for processors in (132, 114, 78):
            for codes in (True, False):
                many = many_tile(rows, columns, processors, codes=codes)
                staged = many.consumers * 64 * many.width * (1 if codes else 4)
                assert many.stages * (many.consumers * 64 + many.columns) * many.inner + staged <= SHARED
                assert many.width <= many.columns


def test_other_devices_have_their_own_products() -> None:
    """Nothing is launched, and nothing imported, for tensors elsewhere."""
    x, w, scale, out = torch.ones(200, 16).char(), torch.ones(8, 16).char(), torch.ones(8), torch.zeros(200, 8)
    assert not multiplied(x, w, scale, None, out, kind=FLOAT, pdl=False, workspace=None)


@pytest.mark.gpu
@pytest.mark.skipif(not HOPPER, reason="needs a GPU of capability 9")
@pytest.mark.parametrize("kind", [CODES, FLOAT, ADD])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "inner"),
    [(8, 2560, 5120), (20, 3352, 768), (100, 10576, 2560), (129, 80, 16), (700, 3352, 336), (1000, 2560, 5120)],
)
def test_products_on_hopper(rows: int, columns: int, inner: int, shared: bool, kind: int) -> None:
    """Bit for bit, twice in a row, with rows of x that lie apart and columns that fill no tile."""
    torch.manual_seed(0)
    x = torch.randint(-128, 128, (rows, 2 * inner), dtype=torch.int8, device="cuda")[:, :inner]
    w = torch.randint(-128, 128, (columns, inner), dtype=torch.int8, device="cuda")
    scale, bias = torch.rand(columns, device="cuda") * 1e-3, torch.randn(columns, device="cuda")
    workspace = new_workspace(x.device) if shared else None
    found = torch.full((rows, columns), 3, dtype=torch.int8 if kind == CODES else torch.float32, device="cuda")
    expected = found.cpu()
    for given in (bias, None):
        gemm(x, w, scale, given, found, kind=kind, pdl=True, workspace=workspace)
        there = None if given is None else given.cpu()
        gemm_reference(x.cpu(), w.cpu(), scale.cpu(), there, expected, kind=kind)
    assert torch.equal(found.cpu(), expected)
