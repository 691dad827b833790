"""The fused kernels of a step, each against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.convolution import Convolution, Following, Past
from quamba.kernels.launch import Launch
from quamba.kernels.packed4 import pack, unpack
from quamba.kernels.triton_conv_step import conv_step
from quamba.kernels.triton_embed import embed, embed_reference
from quamba.kernels.triton_gemm import gemm, gemm_reference
from quamba.kernels.triton_gemv import ADD, CODES, FLOAT, gemv, gemv_reference
from quamba.kernels.triton_gemv4 import gemv4
from quamba.kernels.triton_join import join, join_reference
from quamba.kernels.triton_norm import norm, norm_reference
from quamba.kernels.triton_selective_step import SelectiveStep, selective_step, selective_step_reference
from quamba.kernels.triton_ssd_step import SSDStep, ssd_step, ssd_step_reference
from quamba.packing import pack_int4
from quamba.transforms.hadamard import hadamard_matrix
from tests.quamba.kernel_device import DEVICE, GPU, PDL, REAL, codes, sqnr_db

# The interpreter takes its time for each program, whatever its size.
HOW = Launch(device=GPU, pdl=PDL, other=None if GPU else (64, 4, None))


def make_step(E: int, P: int, G: int, N: int, *, norm_first: bool, rows: int) -> SSDStep:
    H = E // P
    heads = torch.randperm(H, device=DEVICE)
    if G > 1:
        heads = torch.arange(H, device=DEVICE)
    places = torch.stack([torch.randperm(P, device=DEVICE) for _ in range(H)])
    table = torch.rand(rows, N, device=DEVICE) * 0.01 + 0.01
    return SSDStep(
        sizes=(E, H, P, G, N),
        projected_scale=torch.rand(2 * E + 2 * G * N + H, device=DEVICE) * 0.02 + 0.01,
        dt_bias=torch.randn(H, device=DEVICE) - 3,
        A=-torch.rand(H, device=DEVICE) * 8 - 0.5,
        D=torch.randn(E, device=DEVICE),
        dt_limit=(0.0, float("inf")),
        state_table=table,
        state_inverse=1 / table,
        state_rows=torch.randint(0, rows, (E,), device=DEVICE).to(torch.int16),
        norm_weight=torch.randn(E, device=DEVICE),
        norm_first=norm_first,
        old_head=heads.int(),
        old_place=places.flatten().to(torch.int16),
    )


def make_convolution(batch: int, columns: int, taps: int, first: int = 5, last: int = 1) -> tuple[Convolution, Past]:
    """Of all columns but the first and the last few, at a time when the ring goes round."""
    C = columns - first - last
    conv = Convolution(
        first=first,
        weight=codes(taps, C),
        factor=torch.rand(C, device=DEVICE) * 1e-4,
        bias=torch.randn(C, device=DEVICE) * 0.1,
        scale=torch.rand(C, device=DEVICE) * 0.02 + 0.01,
    )
    return conv, Past(codes(batch, taps, C), torch.tensor([taps + 1], dtype=torch.int32, device=DEVICE))


def on_cpu(convolution: tuple[Convolution, Past]) -> tuple[Convolution, Past]:
    c, past = convolution
    return (
        Convolution(c.first, c.weight.cpu(), c.factor.cpu(), c.bias.cpu(), c.scale.cpu()),
        Past(past.ring.cpu(), past.position.cpu()),
    )


def check_convolution(found: Tensor, expected: Tensor, ring: Tensor, expected_ring: Tensor) -> None:
    """The ring exactly, codes but for those that rounding moves by one."""
    assert torch.equal(ring.cpu(), expected_ring)
    assert (found.cpu().int() - expected.int()).abs().max() <= 1
    assert (found.cpu() != expected).float().mean() < 2e-3


def _on_cpu(gain: tuple[Tensor, Tensor, float] | None) -> tuple[Tensor, Tensor, float] | None:
    return None if gain is None else (gain[0].cpu(), gain[1].cpu(), gain[2])


@pytest.mark.parametrize("kind", [CODES, FLOAT, ADD])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(50, 192), (33, 64), *(pytest.param(s, marks=REAL) for s in ((10576, 2560), (2560, 5120), (3352, 768)))],
)
def test_a_row_times_a_weight(shape: tuple[int, int], normed: bool, kind: int) -> None:
    """Sums are exact: equal bit for bit, but for codes that the norm's rounding moves."""
    torch.manual_seed(0)
    N, K = shape
    w, scale, bias = codes(N, K), torch.rand(N, device=DEVICE) * 1e-4, torch.randn(N, device=DEVICE)
    x = torch.randn(2, K, device=DEVICE) if normed else codes(2, K)
    gain = (1 + torch.randn(K, device=DEVICE) / 8, torch.tensor(0.02, device=DEVICE), 1e-5) if normed else None
    found = torch.full((2, N), 3, dtype=torch.int8 if kind == CODES else torch.float32, device=DEVICE)
    expected = found.cpu()
    gemv(x, w, scale, bias, found, kind=kind, norm=gain, **HOW.gemv(N, K))
    gemv_reference(x.cpu(), w.cpu(), scale.cpu(), bias.cpu(), expected, kind=kind, norm=_on_cpu(gain))
    if normed:
        assert sqnr_db(found.cpu(), expected) > 50
    else:
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("sizes", "parts", "norm_first"),
    [
        ((32, 16, 1, 16), 4, False),
        ((32, 16, 2, 8), 1, True),
        *(
            pytest.param(s, parts, first, marks=REAL)
            for s in ((5120, 64, 1, 128), (1536, 64, 1, 128), (2048, 64, 8, 64))
            for parts in (1, 4, 8)
            for first in (False, True)
        ),
    ],
)
def test_a_step_between_the_projections(sizes: tuple[int, int, int, int], parts: int, norm_first: bool) -> None:
    """The state's codes as by the definition, but for those that rounding moves by one."""
    torch.manual_seed(1)
    step = make_step(*sizes, norm_first=norm_first, rows=3)
    E, H, P, G, N = step.sizes
    state = codes(2, H, P, N)
    options = {"pdl": HOW.pdl}
    results = []
    for run, how in ((ssd_step, options), (ssd_step_reference, {})):
        torch.manual_seed(2)
        kept = state.clone()
        out, squares = torch.full((2, E), 7.0, device=DEVICE), torch.full((2, H * parts), 7.0, device=DEVICE)
        run(step, codes(2, 2 * E + 2 * G * N + H), kept, out, squares, **how)
        results.append((kept, out, squares))
    (state, out, squares), expected = results
    assert (state.int() - expected[0].int()).abs().max() <= 1
    assert (state != expected[0]).float().mean() < 1e-3
    assert sqnr_db(out, expected[1]) > 60
    assert sqnr_db(squares, expected[2]) > 60


@pytest.mark.parametrize(("kernel", "taps"), [("gemv", 2), ("gemv", 4), ("gemv4", 3), ("gemm", 2), ("gemm of many", 4)])
def test_a_convolution_behind_a_product(kernel: str, taps: int) -> None:
    """In the launch of every kernel of few rows, or after it, with rows of x that lie apart."""
    torch.manual_seed(11)
    rows, (N, K) = (70 if kernel == "gemm of many" else 2), (40, 256)
    scale = torch.rand(N, device=DEVICE) * 1e-3
    x = codes(rows, 2 * K)[:, :K]
    conv = make_convolution(rows, N, taps)
    there = on_cpu(conv)
    found = torch.full((rows, N), 3, dtype=torch.int8, device=DEVICE)
    expected = found.cpu()
    if kernel == "gemv4":
        packed = pack(codes(N, K) >> 4, torch.rand(N, K // 128, device=DEVICE) * 17 + 1)
        assert packed is not None
        w = unpack(packed)
        gemv4(x, packed, scale, None, found, kind=CODES, conv=conv, **HOW.gemv(N, K) | {"block": 16})
    else:
        w = codes(N, K)
        if kernel == "gemv":
            gemv(x, w, scale, None, found, kind=CODES, conv=conv, **HOW.gemv(N, K))
        else:
            gemm(x, w, scale, None, found, kind=CODES, tile=(64 if rows > 16 else 16, 32, 128))
            conv_step(found, *conv, pdl=HOW.pdl)
    gemv_reference(x.cpu(), w.cpu(), scale.cpu(), None, expected, kind=CODES, conv=there)
    check_convolution(found, expected, conv[1].ring, there[1].ring)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("first", [0, 8])
def test_a_product_behind_a_convolution(bits: int, first: int) -> None:
    """Its sums are those of the codes that were given, on top of what they were: blocks of channels begin before the
    first and end behind the last."""
    torch.manual_seed(12)
    (N, K), J = (40, 256), 50
    C = N - first - 4
    scale, x = torch.rand(N, device=DEVICE) * 1e-3, codes(2, K)
    conv = make_convolution(2, N, 4, first, 4)
    weight = codes(J, C)
    following = Following(
        weight.view(torch.int32).t().contiguous(), torch.full((2, J), 5, dtype=torch.int32, device=DEVICE)
    )
    found = torch.zeros(2, N, dtype=torch.int8, device=DEVICE)
    how = HOW.gemv(N, K) | {"block": 16, "kind": CODES, "conv": conv, "following": following}
    if bits == 4:
        packed = pack(codes(N, K) >> 4, torch.rand(N, K // 128, device=DEVICE) * 17 + 1)
        assert packed is not None
        gemv4(x, packed, scale, None, found, **how)
    else:
        gemv(x, codes(N, K), scale, None, found, **how)
    products = found[:, first : first + C].double() @ weight.double().t()
    assert torch.equal(following.sums, 5 + products.to(torch.int32))


@pytest.mark.parametrize(("groups", "rotate"), [(None, True), (1, False), (2, True), (2, False)])
@pytest.mark.parametrize(
    "sizes", [(12, 16), (20, 8), *(pytest.param(s, marks=REAL) for s in ((80, 64), (40, 128), (24, 64), (128, 64)))]
)
def test_norm_and_rotation_of_all_channels(sizes: tuple[int, int], groups: int | None, rotate: bool) -> None:
    """As by the definition, but for codes that rounding moves by one; and sums are zeros again."""
    torch.manual_seed(3)
    R, P = sizes
    x, squares = torch.randn(2, R * P, device=DEVICE), torch.rand(2, 2 * R, device=DEVICE) * P / 2
    factors = tuple(hadamard_matrix(size).half().to(DEVICE) for size in sizes) if rotate else None
    scale = torch.tensor(0.03 * (R * P) ** 0.5 if rotate else 0.03, device=DEVICE)
    found, expected = (torch.full((2, R * P), 3, dtype=torch.int8, device=DEVICE) for _ in range(2))
    given = None if groups is None else squares
    sums = torch.ones(2, 70, dtype=torch.int32, device=DEVICE)
    join(x, given, factors, scale, found, rows=R, groups=groups or 1, eps=1e-5, pdl=HOW.pdl, clear=sums)
    join_reference(x, given, factors, scale, expected, rows=R, groups=groups or 1, eps=1e-5)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 2e-3
    assert not sums.any()


@pytest.mark.parametrize("kind", [CODES, FLOAT, ADD])
@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((5, 50, 192), (16, 16, 64)),
        ((70, 33, 80), (64, 32, 64)),
        *(
            pytest.param((m, *s), None, marks=REAL)
            for m in (5, 32, 130, 700)
            for s in ((10576, 2560), (2560, 5120), (80, 1536))
        ),
    ],
)
def test_many_rows_times_a_weight(shape: tuple[int, int, int], tile: tuple[int, int, int] | None, kind: int) -> None:
    """Sums are exact, whatever does not fill a tile: equal bit for bit."""
    torch.manual_seed(4)
    M, N, K = shape
    x, w = codes(M, K), codes(N, K)
    scale, bias = torch.rand(N, device=DEVICE) * 1e-4, torch.randn(N, device=DEVICE)
    found = torch.full((M, N), 3, dtype=torch.int8 if kind == CODES else torch.float32, device=DEVICE)
    expected = found.cpu()
    gemm(x, w, scale, bias, found, kind=kind, tile=tile, pdl=HOW.pdl)
    gemm_reference(x.cpu(), w.cpu(), scale.cpu(), bias.cpu(), expected, kind=kind)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("width", [50, pytest.param(2560, marks=REAL)])
def test_the_norm_of_many_rows(width: int) -> None:
    """As by the definition, but for codes that rounding moves by one."""
    torch.manual_seed(5)
    x, weight = 3 * torch.randn(9, width, device=DEVICE), torch.randn(width, device=DEVICE)
    found, expected = (torch.full((9, width), 3, dtype=torch.int8, device=DEVICE) for _ in range(2))
    scale = torch.tensor(0.02, device=DEVICE)
    norm(x, weight, scale, found, eps=1e-5, pdl=HOW.pdl)
    norm_reference(x, weight, scale, expected, eps=1e-5)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 5e-3


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_rows_of_an_embedding(bits: int) -> None:
    """Whatever they are kept in, bit for bit."""
    torch.manual_seed(6)
    table, scale = codes(20, 50), torch.rand(20, device=DEVICE)
    if bits == 4:
        table, scale = pack_int4(table.clamp(-8, 7)), scale.half()
    given = (table.float(), None) if bits == 32 else (table, scale)
    ids = torch.tensor([3, 19, 0], device=DEVICE)
    found, expected = torch.zeros(3, 50, device=DEVICE), torch.ones(3, 50, device=DEVICE)
    times = [torch.tensor([6], dtype=torch.int32, device=DEVICE) for _ in range(2)]
    embed(ids, times[0], *given, found)
    embed_reference(ids, times[1], *given, expected)
    assert [int(time) for time in times] == [7, 7]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [CODES, ADD])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(10, 256), *(pytest.param(s, marks=REAL) for s in ((10576, 2560), (2560, 5120), (3352, 768), (768, 1536)))],
)
def test_a_row_times_four_bits(shape: tuple[int, int], normed: bool, kind: int) -> None:
    """What codes and factors stand for, multiplied in integers: equal bit for bit, but for codes that a norm moves."""
    torch.manual_seed(7)
    N, K = shape
    four = torch.randint(-8, 8, (N, K), dtype=torch.int8, device=DEVICE)
    factors = (torch.rand(N, K // 128, device=DEVICE) * 17 + 1).half()
    w = pack(four, factors)
    assert w is not None
    integers = (four * factors.float().repeat_interleave(128, 1)).round().clamp(-128, 127).to(torch.int8)
    assert torch.equal(unpack(w), integers)
    scale, bias = torch.rand(N, device=DEVICE) * 1e-4, torch.randn(N, device=DEVICE)
    x = torch.randn(2, K, device=DEVICE) if normed else codes(2, K)
    gain = (1 + torch.randn(K, device=DEVICE) / 8, torch.tensor(0.02, device=DEVICE), 1e-5) if normed else None
    found = torch.full((2, N), 3, dtype=torch.int8 if kind == CODES else torch.float32, device=DEVICE)
    expected = found.clone()
    how = HOW.gemv(N, K, bits=4) | ({} if GPU else {"block": 16})
    gemv4(x, w, scale, bias, found, kind=kind, norm=gain, **how)
    gemv_reference(
        x.cpu(), integers.cpu(), scale.cpu(), bias.cpu(), there := expected.cpu(), kind=kind, norm=_on_cpu(gain)
    )
    if normed:
        assert sqnr_db(found.cpu(), there) > 50
    else:
        assert torch.equal(found.cpu(), there)


def test_four_bits_that_tables_hold() -> None:
    """Of any factor up to 127 / 7, and what is beyond -128 is -128; rows have to be whole groups."""
    four = torch.arange(-8, 8, dtype=torch.int8).repeat(1, 16)
    for factor in (18.14, 15.95, 15.9, 1.0, 0.3, 0.05, 0.0):
        packed = pack(four, torch.full((1, 2), factor))
        assert packed is not None
        assert torch.equal(unpack(packed), (four * factor).round().clamp(-128, 127).to(torch.int8))
    assert pack(four, torch.full((1, 2), 18.3)) is None
    assert pack(four, torch.full((1, 2), 0.065)) is None
    assert pack(four[:, :64], torch.ones(1, 1)) is None


@pytest.mark.parametrize(
    "sizes", [(64, 6, 16), (48, 3, 5), *(pytest.param(s, marks=REAL) for s in ((5120, 160, 16), (1536, 48, 16)))]
)
@pytest.mark.parametrize("summed", [False, True])
def test_a_selective_step(sizes: tuple[int, int, int], summed: bool) -> None:
    """States as by the definition, but for codes that rounding moves by one; from x_proj's codes, or from its sums."""
    torch.manual_seed(10)
    E, R, N = sizes

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=DEVICE)

    step = SelectiveStep(
        z_scale=uniform(E) * 0.02,
        u_scale=uniform(1)[0] * 0.02,
        parameter_factor=uniform(R + 2 * N) * 1e-5,
        parameter_scale=uniform(1)[0] * 0.02,
        dt_weight=codes(E, R),
        dt_factor=uniform(E) * 1e-3,
        dt_scale=uniform(E) * 0.02,
        dt_bias=uniform(E) - 3,
        A=-uniform(E, N) * 16,
        D=uniform(E),
        state_scale=uniform(1)[0] * 0.01 + 0.01,
        gain=0.125,
    )
    parameters, state = codes(2, R + 2 * N), codes(2, E, N)
    given = (codes(2, 2 * E), parameters.int() * 80000 if summed else parameters)
    results = []
    for run, how in ((selective_step, {"pdl": HOW.pdl}), (selective_step_reference, {})):
        kept, out = state.clone(), torch.full((2, E), 7.0, device=DEVICE)
        run(step, *given, kept, out, **how)
        results.append((kept, out))
    (state, out), expected = results
    assert (state.int() - expected[0].int()).abs().max() <= 1
    assert (state != expected[0]).float().mean() < 2e-3
    assert sqnr_db(out, expected[1]) > 60
