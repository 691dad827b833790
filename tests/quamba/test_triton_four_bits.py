"""Products of floats with 4-bit codes, each kernel against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.granularity import WeightScheme
from quamba.kernels.four_bits import Kernels, linear_of_codes
from quamba.kernels.triton_expand4 import expand4, expand4_reference
from quamba.kernels.triton_float_step import FloatStep, float_step, float_step_reference
from quamba.kernels.triton_gemm4 import gemm4, gemm4_reference, turned
from quamba.kernels.triton_gemm4_half import gemm4_half, gemm4_half_reference
from quamba.kernels.triton_gemv import ADD, CODES, FLOAT
from quamba.kernels.triton_gemv4_half import gemv4_half, gemv4_half_reference
from quamba.kernels.triton_halves import Halves, halves, halves_reference
from quamba.kernels.triton_join import join, join_reference
from quamba.kernels.triton_split import Split, joined, split, split_reference
from quamba.nn.linear import Linear, QLinear
from quamba.transforms.hadamard import hadamard_matrix
from tests.quamba.kernel_device import DEVICE, GPU, PDL, REAL, sqnr_db

SHAPES = [(20, 256), (15, 384), *(pytest.param(s, marks=REAL) for s in ((10576, 2560), (2560, 5120), (768, 1536)))]


def weight_of(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, the groups' scales and a bias."""
    N, K = shape
    codes = torch.randint(0, 256, (N, K // 2), dtype=torch.uint8, device=DEVICE)
    scale = (torch.rand(N, K // 128, device=DEVICE) * 0.01 + 1e-3).half()
    return codes, scale, torch.randn(N, device=DEVICE)


def rows_of(M: int, K: int) -> Tensor:
    """Rows far apart in size, with columns that stand out."""
    sizes = torch.logspace(-20, 20, M, device=DEVICE)[:, None]
    return torch.randn(M, K, device=DEVICE) * torch.randn(K, device=DEVICE).exp() * sizes


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_as_bytes(dtype: torch.dtype, normed: bool) -> None:
    """Bytes and units are those of the definition, and 80 dB or more from the floats; a row of zeros is one."""
    torch.manual_seed(0)
    x = rows_of(3, 768 if GPU else 160)
    x = (x / x.abs().amax(1, keepdim=True) if normed else x).to(dtype)
    x[1] = 0
    norm = (torch.randn(x.shape[1], device=DEVICE), 1e-5) if normed else None
    found, expected = (Split.empty(*x.shape, DEVICE) for _ in range(2))
    split(x, found, norm=norm, pdl=PDL)
    split_reference(x, expected, norm=norm)
    assert sqnr_db(joined(found), joined(expected)) > 90
    plain = x.float() if norm is None else torch.nn.functional.rms_norm(x.float(), norm[0].shape, *norm)
    assert all(sqnr_db(joined(found)[row], plain[row]) > 80 for row in (0, 2))
    assert not joined(found)[1].any()


@pytest.mark.parametrize("kind", [FLOAT, ADD])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_floats_times_four_bits(shape: tuple[int, int], kind: int) -> None:
    """80 dB or more from float32, for every row by itself."""
    torch.manual_seed(1)
    codes, scale, bias = weight_of(shape)
    x = rows_of(2, shape[1])
    found = torch.full((2, shape[0]), 3.0, device=DEVICE)
    expected = found.clone()
    bytes_ = Split.empty(*x.shape, DEVICE)
    split(x, bytes_, pdl=PDL)
    given = None if kind == ADD else bias
    gemv4_half(bytes_, codes, scale, given, found, kind=kind, block=16, device=GPU, pdl=PDL)
    gemv4_half_reference(x.double().float(), codes, scale, given, expected, kind=kind)
    assert all(sqnr_db(found[row], expected[row]) > 80 for row in range(2))


@pytest.mark.parametrize("kind", [FLOAT, ADD])
@pytest.mark.parametrize("rows", [20, *(pytest.param(m, marks=REAL) for m in (32, 130, 700))])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_rows_of_floats_times_four_bits(shape: tuple[int, int], rows: int, kind: int) -> None:
    """60 dB or more, one part in 2^10, for every row by itself: none is too large or too small for float16."""
    torch.manual_seed(2)
    codes, scale, bias = weight_of(shape)
    x = rows_of(rows, shape[1])
    found = torch.full((rows, shape[0]), 1e-15, device=DEVICE)
    expected = found.clone()
    rounded = Halves.empty(*x.shape, DEVICE)
    halves(x, rounded, pdl=PDL)
    same = Halves.empty(*x.shape, DEVICE)
    halves_reference(x, same)
    assert torch.equal(rounded.values, same.values)
    assert torch.equal(rounded.unit, same.unit)
    given = None if kind == ADD else bias
    gemm4_half(rounded, codes, turned(scale), given, found, kind=kind, device=GPU, pdl=PDL)
    gemm4_half_reference(x, codes, turned(scale), given, expected, kind=kind)
    assert all(sqnr_db(found[row], expected[row]) > 60 for row in range(rows))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("integers", [True, False])
def test_expanded_weights(shape: tuple[int, int], integers: bool) -> None:
    """As by the definition, bit for bit, for factors of any size."""
    torch.manual_seed(3)
    codes, scale, _ = weight_of(shape)
    if integers:
        scale = (scale * 2000).half()
        scale[0], scale[1], scale[2] = 0.0, 65504.0, 0.0625
    found = expand4(codes, scale, integers=integers, device=GPU)
    assert torch.equal(found, expand4_reference(codes, scale, integers=integers))


@pytest.mark.parametrize("kind", [CODES, FLOAT, ADD])
@pytest.mark.parametrize(
    ("rows", "shape", "tile"),
    [
        (5, (20, 256), (16, 32)),
        *(pytest.param(m, s.values[0], None, marks=REAL) for m in (8, 33, 250) for s in SHAPES[2:]),
    ],
)
def test_codes_times_four_bits(rows: int, shape: tuple[int, int], tile: tuple[int, int] | None, kind: int) -> None:
    """Sums are exact: equal bit for bit, with rows of x that lie apart and factors of any size."""
    torch.manual_seed(5)
    codes, factors, bias = weight_of(shape)
    factors = (factors * 2000).half()
    factors[0], factors[1] = 0.0, 65504.0
    x = torch.randint(-128, 128, (rows, 2 * shape[1]), dtype=torch.int8, device=DEVICE)[:, : shape[1]]
    scale = torch.rand(shape[0], device=DEVICE) * 1e-4
    found = torch.full((rows, shape[0]), 3, dtype=torch.int8 if kind == CODES else torch.float32, device=DEVICE)
    expected = found.cpu()
    gemm4(x, codes, turned(factors), scale, bias, found, kind=kind, tile=tile, device=GPU, pdl=PDL)
    there = (tensor.cpu() for tensor in (x, codes, turned(factors), scale, bias))
    gemm4_reference(*there, expected, kind=kind)
    assert torch.equal(found.cpu(), expected)


def test_one_rounding_gives_the_integer_of_a_code() -> None:
    """What the device computes, c f + 1536 in float16, for every code and every factor."""
    code = torch.arange(-8, 8).double()
    factor = torch.arange(0x7C00, dtype=torch.int16).view(torch.float16)
    # Exact in float64: one rounding, as a fused operation has it.
    sums = (code[:, None] * factor.double() + 1536).half().clamp(1408, 1663)
    found = (sums.view(torch.int16) & 0xFF).to(torch.uint8).view(torch.int8)
    assert torch.equal(found, (code[:, None].float() * factor.float()).round().clamp(-128, 127).to(torch.int8))


@pytest.mark.parametrize("rows", [1, 3, pytest.param(600, marks=REAL)])
def test_a_layer_of_four_bits(rows: int) -> None:
    """The kernels' choice agrees with the layer's own product in float32, for activations of any shape and type."""
    torch.manual_seed(4)
    layer = QLinear.quantize(
        Linear(torch.randn(40, 256, device=DEVICE), torch.randn(40, device=DEVICE)), None, scheme=WeightScheme.of(4, 16)
    )
    x = torch.randn(1, rows, 256, device=DEVICE, dtype=torch.bfloat16)
    assert layer.group_scale is not None
    expected = torch.nn.functional.linear(x.float(), layer.operand(), layer.bias)
    if GPU:
        found = layer(x)
    else:
        kernels = Kernels.load(pdl=False, device=False)
        found = kernels.multiply(x[0], layer.codes, layer.group_scale, layer.bias)
    assert sqnr_db(found, expected) > 70


def test_what_kernels_do_not_take_is_left_to_float32() -> None:
    """On other devices, without rows, and for groups that are not whole."""
    codes, scale, bias = weight_of((4, 256))
    assert linear_of_codes(torch.ones(2, 256), codes.cpu(), scale.cpu(), bias.cpu()) is None
    assert linear_of_codes(torch.ones(0, 256, device=DEVICE), codes, scale, bias) is None
    assert linear_of_codes(torch.ones(2, 200, device=DEVICE), codes[:, :100], scale, bias) is None


@pytest.mark.parametrize(
    ("sizes", "parts", "norm_first"),
    [
        ((32, 16, 2, 8), 2, False),
        *(
            pytest.param(s, parts, first, marks=REAL)
            for s in ((5120, 64, 1, 128), (2048, 64, 8, 64))
            for parts in (1, 4)
            for first in (False, True)
        ),
    ],
)
def test_a_step_in_floats(sizes: tuple[int, int, int, int], parts: int, norm_first: bool) -> None:
    """From projection to norm, with what the convolution remembers: as by the definition but for rounding."""
    torch.manual_seed(6)
    E, P, G, N = sizes
    H, C, taps = E // P, E + 2 * G * N, 3
    step = FloatStep(
        sizes=(E, H, P, G, N),
        conv_weight=torch.randn(taps, C, device=DEVICE),
        conv_bias=torch.randn(C, device=DEVICE),
        dt_bias=torch.randn(H, device=DEVICE) - 3,
        A=-torch.rand(H, device=DEVICE) * 8 - 0.5,
        D=torch.randn(E, device=DEVICE),
        dt_limit=(0.0, float("inf")),
        norm_weight=torch.randn(E, device=DEVICE),
        norm_first=norm_first,
        old_head=torch.randperm(H, device=DEVICE).int(),
        old_place=torch.stack([torch.randperm(P, device=DEVICE) for _ in range(H)]).flatten().to(torch.int16),
    )
    given = torch.randn(2, 2 * E + 2 * G * N + H, device=DEVICE)
    ring, state = torch.randn(2, taps, C, device=DEVICE), torch.randn(2, H, P, N, device=DEVICE)
    position = torch.tensor([taps + 1], dtype=torch.int32, device=DEVICE)
    results = []
    for run, how in ((float_step, {"pdl": PDL}), (float_step_reference, {})):
        kept = ring.clone(), state.clone()
        out, squares = torch.zeros(2, E, device=DEVICE), torch.zeros(2, H * parts, device=DEVICE)
        run(step, given, kept[0], position, kept[1], out, squares, **how)
        results.append((*kept, out, squares))
    assert torch.equal(results[0][0], results[1][0])
    for found, expected in zip(*results, strict=True):
        assert sqnr_db(found, expected) > 90


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(
    "sizes", [(12, 32), *(pytest.param(s, marks=REAL) for s in ((80, 64), (40, 128), (24, 64), (128, 64)))]
)
def test_norm_and_rotation_to_bytes(sizes: tuple[int, int], rotate: bool) -> None:
    """What the definition splits, 80 dB or more, of floats of any size."""
    torch.manual_seed(7)
    R, P = sizes
    x, squares = torch.randn(2, R * P, device=DEVICE), torch.rand(2, 2 * R, device=DEVICE) * P / 2
    factors = tuple(hadamard_matrix(size).half().to(DEVICE) for size in sizes) if rotate else None
    found, expected = (Split.empty(2, R * P, DEVICE) for _ in range(2))
    for size, sums in ((1.0, squares), (1e8, None), (1e-12, None)):
        join(x * size, sums, factors, None, found, rows=R, groups=2, eps=1e-5, pdl=PDL)
        join_reference(x * size, sums, factors, None, expected, rows=R, groups=2, eps=1e-5)
        assert sqnr_db(joined(found), joined(expected)) > 80
