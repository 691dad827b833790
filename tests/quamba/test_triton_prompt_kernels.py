"""The fused kernels of whole prompts, each against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.convolution import Convolution
from quamba.kernels.gated_rotation import NO_NORM, OF_GATED, OF_PLAIN, Gate, rotate_reference
from quamba.kernels.rotation_factors import Factors
from quamba.kernels.scaled_chunk_scan import CHUNK, ChunkScan, chunk_scan_reference
from quamba.kernels.triton_chunk_scan import chunk_scan
from quamba.kernels.triton_chunk_times import chunk_times, chunk_times_reference
from quamba.kernels.triton_conv_prompt import conv_prompt, conv_prompt_reference
from quamba.kernels.triton_rotate import rotate
from quamba.transforms.hadamard import hadamard_matrix
from tests.quamba.kernel_device import DEVICE, GPU, REAL, codes, sqnr_db
from tests.quamba.test_triton_kernels import make_step


def make_convolution(first: int, channels: int, taps: int) -> Convolution:
    return Convolution(
        first,
        codes(taps, channels),
        torch.rand(channels, device=DEVICE) * 4e-4 + 1e-4,
        torch.randn(channels, device=DEVICE),
        torch.rand(channels, device=DEVICE) * 0.05 + 0.02,
    )


def assert_codes_agree(found: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    """But for a few that lie between two."""
    apart = (found.int() - expected.int()).abs()
    assert int(apart.max()) <= 1
    assert int((apart > 0).sum()) <= max(1, share * apart.numel())


@pytest.mark.parametrize(
    ("batch", "length", "width", "first", "channels", "taps", "context"),
    [
        (2, 9, 48, 16, 24, 4, True),
        (1, 5, 20, 0, 20, 3, False),
        (1, 1, 16, 8, 8, 2, True),
        pytest.param(2, 333, 3352, 1536, 1792, 4, True, marks=REAL),
        pytest.param(8, 2048, 10576, 5120, 5376, 4, False, marks=REAL),
        pytest.param(2, 1000, 5120, 0, 2560, 3, True, marks=REAL),
    ],
)
def test_convolution_of_a_prompt(
    batch: int, length: int, width: int, first: int, channels: int, taps: int, context: bool
) -> None:
    """Its definition, whatever the number of taps, with codes before the first token or none."""
    torch.manual_seed(0)
    conv, given = make_convolution(first, channels, taps), codes(batch, length, width)
    before = codes(batch, taps - 1, channels) if context else None
    found, expected = (torch.empty(batch, length, channels, dtype=torch.int8, device=DEVICE) for _ in range(2))
    conv_prompt(given, conv, before, found, tokens=8 if length < 64 else 64, device=GPU)
    conv_prompt_reference(given, conv, before, expected)
    assert_codes_agree(found, expected)


def scanned(
    scan: ChunkScan, projected: Tensor, conv: Tensor, lengths: Tensor | None, before: Tensor | None, parts: int
) -> tuple[Tensor, Tensor]:
    """y, and the state behind the last token, by the two launches."""
    E, H, P, G, N = scan.step.sizes
    (batch, length, _), chunks = projected.shape, -(-projected.shape[1] // CHUNK)
    decay, entry = (torch.empty(batch, H, chunks, CHUNK, device=DEVICE) for _ in range(2))
    columns = torch.empty(batch, chunks * CHUNK, 2 * G * N, dtype=torch.float16, device=DEVICE)
    step, dt = scan.step, 2 * (E + G * N)
    dt_scale = step.projected_scale[dt:].contiguous()
    given = (projected, conv, dt_scale, step.dt_bias, step.A, scan.bound, step.dt_limit, lengths)
    chunk_times(*given, decay, entry, columns)
    own = [torch.empty_like(made) for made in (decay, entry, columns)]
    chunk_times_reference(*given, *own)
    for found, expected in zip((decay, entry, columns[:, :length]), (own[0], own[1], own[2][:, :length]), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
    out = torch.empty(batch, length, E, dtype=torch.float16, device=DEVICE)
    after = torch.empty(batch, H, P, N, dtype=torch.int8, device=DEVICE)
    chunk_scan(scan, conv, decay, entry, columns, before, after, out, parts=parts, device=GPU)
    places = step.old_head.long().repeat_interleave(P) * P + step.old_place.long()
    gain = torch.empty_like(scan.gain)
    gain[places] = scan.gain
    return out.float() * gain, after


@pytest.mark.parametrize(
    ("sizes", "batch", "length", "lengths", "before", "parts", "rows"),
    [
        ((32, 16, 1, 16), 2, 70, [70, 3], True, 1, 1),
        ((64, 16, 2, 32), 1, 20, None, False, 1, 3),
        pytest.param((1536, 64, 1, 128), 3, 333, [333, 1, 200], True, 2, 1, marks=REAL),
        pytest.param((5120, 64, 1, 128), 2, 1024, None, False, 1, 1, marks=REAL),
        pytest.param((2048, 64, 8, 128), 2, 200, [64, 200], True, 1, 5, marks=REAL),
    ],
)
def test_recurrence_of_a_prompt(
    sizes: tuple[int, int, int, int],
    batch: int,
    length: int,
    lengths: list[int] | None,
    before: bool,
    parts: int,
    rows: int,
) -> None:
    """Its definition to 60 dB, from a state or none, however long the rows are; padding leaves the state alone."""
    torch.manual_seed(0)
    E, P, G, N = sizes
    step = make_step(E, P, G, N, norm_first=False, rows=rows)
    step.projected_scale[2 * E : 2 * E + 2 * G * N] = 0.02
    step.projected_scale[2 * E + 2 * G * N :] = 0.04
    projected, conv = codes(batch, length, 2 * E + 2 * G * N + E // P), codes(batch, length, E + 2 * G * N)
    ends = None if lengths is None else torch.tensor(lengths, device=DEVICE)
    state = codes(batch, E // P, P, N) if before else None
    scan = ChunkScan.of(step)
    assert scan is not None
    found, after = scanned(scan, projected, conv, ends, state, parts)
    expected, own_after = torch.empty_like(found), torch.empty_like(after)
    dt = torch.nn.functional.softplus(projected[..., -(E // P) :] * 0.04 + step.dt_bias)
    live = torch.ones(batch, length, dtype=torch.bool, device=DEVICE)
    if ends is not None:
        live = torch.arange(length, device=DEVICE) < ends[:, None]
    chunk_scan_reference(step, dt * live[..., None], conv, state, own_after, expected)
    assert sqnr_db(found[live], expected[live]) > 60
    assert_codes_agree(after, own_after, 0.02)


def make_gate(E: int, P: int, G: int, *, norm: int, alike: bool, ordered: bool) -> Gate:
    step = make_step(E, P, G, 16, norm_first=norm == OF_PLAIN, rows=1)
    if alike:
        step.projected_scale[:E] = 0.03
    if ordered:
        step.old_place[:] = (torch.arange(E) % P).to(torch.int16)
    gain = torch.full((E,), 0.5, device=DEVICE) if alike else torch.rand(E, device=DEVICE) + 0.1
    step.norm_weight.mul_(E**-0.5)
    return Gate.of(step, gain, None if norm == NO_NORM else 1e-5, torch.tensor(0.02, device=DEVICE))


@pytest.mark.parametrize(
    ("rows", "columns", "P", "G", "count", "rotated", "norm", "alike", "ordered"),
    [
        (40, 16, 32, 2, 4, True, OF_GATED, True, True),
        (12, 32, 16, 1, 11, True, OF_PLAIN, False, False),
        (6, 32, 16, 3, 23, False, NO_NORM, True, False),
        (24, 16, 16, 1, 7, True, None, True, True),
        (80, 16, 32, 2, 3, True, OF_GATED, True, True),
        pytest.param(80, 64, 64, 1, 1025, True, OF_GATED, True, True, marks=REAL),
        pytest.param(12, 128, 64, 1, 333, True, OF_GATED, False, False, marks=REAL),
        pytest.param(64, 64, 64, 8, 100, True, OF_PLAIN, True, True, marks=REAL),
        pytest.param(40, 128, 64, 1, 777, True, None, True, True, marks=REAL),
    ],
)
def test_gate_norm_and_rotation_of_a_prompt(
    rows: int,
    columns: int,
    P: int,
    G: int,
    count: int,
    rotated: bool,
    norm: int | None,
    alike: bool,
    ordered: bool,
) -> None:
    """Its definition but for a code in fifty, for any number of tokens; with and without gate and norm, in groups."""
    torch.manual_seed(0)
    E = rows * columns
    left = hadamard_matrix(rows) if rows in (12, 64, 80) else torch.randint(0, 2, (rows, rows)) * 2.0 - 1
    factors = (left.half().to(DEVICE), hadamard_matrix(columns).half().to(DEVICE)) if rotated else None
    x, projected, gate = torch.randn(count, E, device=DEVICE), None, None
    scale = torch.tensor(0.02 * E**0.5 if rotated else 0.02, device=DEVICE)
    if norm is not None:
        gate = make_gate(E, P, G, norm=norm, alike=alike, ordered=ordered)
        x, projected = x.half(), codes(count, 2 * E + 8)
        scale = torch.tensor(0.02 if rotated else 5e-4, device=DEVICE)
    found, expected = (torch.empty(count, E, dtype=torch.int8, device=DEVICE) for _ in range(2))
    rotate_reference(x, projected, gate, factors, scale, expected, rows=rows)
    assert int(expected.abs().max()) > 50
    for size in (64, 128):
        made = Factors.of(factors, rows, columns, groups=G, rows=size)
        assert made is not None
        assert made.token_rows == (40 if rows == 80 else rows)
        rotate(x, projected, gate, made, scale, found, steps=2, device=GPU)
        assert_codes_agree(found, expected, 0.02)
