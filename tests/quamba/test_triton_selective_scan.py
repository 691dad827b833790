"""Mamba-1's recurrence over whole prompts, against its definition; interpreted where there is no GPU."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.gated_selective_scan import selective_scan_reference
from quamba.kernels.triton_selective_scan import scan_shape, selective_scan
from quamba.kernels.triton_selective_step import SelectiveStep, selective_step_reference
from tests.quamba.kernel_device import DEVICE, GPU, PDL, REAL, codes, sqnr_db


def make_step(E: int, R: int, N: int) -> SelectiveStep:
    def values(*shape: int) -> Tensor:
        return torch.rand(shape, device=DEVICE) + 0.5

    return SelectiveStep(
        z_scale=values(E) * 0.02,
        u_scale=values() * 0.02,
        parameter_factor=values(R + 2 * N),
        parameter_scale=values() * 0.02,
        dt_weight=codes(E, R),
        dt_factor=values(E) * 1e-3,
        dt_scale=values(E) * 0.02,
        dt_bias=torch.randn(E, device=DEVICE) * 2 - 4,
        A=-values(E, N) * 8,
        D=torch.randn(E, device=DEVICE),
        state_scale=values() * 0.05,
        gain=0.125,
    )


def wide(step: SelectiveStep) -> SelectiveStep:
    """The same numbers as float64."""
    kept = {f.name: getattr(step, f.name) for f in fields(step)}
    return replace(step, **{n: v.double() for n, v in kept.items() if isinstance(v, Tensor) and v.is_floating_point()})


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        # Bt, L, E, R, N
        ((1, 5, 16, 3, 4), (8, 4, 2, 2)),
        ((2, 7, 10, 3, 3), (8, 4, 2, 2)),
        ((3, 1, 8, 2, 1), (8, 4, 1, 1)),
        *(pytest.param(sizes, None, marks=REAL) for sizes in ((1, 1024, 5120, 160, 16), (3, 333, 1536, 48, 16))),
        *(pytest.param(sizes, None, marks=REAL) for sizes in ((2, 65, 100, 12, 5), (2, 50, 256, 8, 128))),
        *(pytest.param(sizes, None, marks=REAL) for sizes in ((1, 77, 64, 8, 256), (2, 40, 96, 8, 1))),
    ],
)
@pytest.mark.parametrize("continued", [False, True])
def test_it_is_the_recurrence(sizes: tuple[int, ...], shape: tuple[int, int, int, int] | None, continued: bool) -> None:
    """Outputs up to each row's length are the recurrence's to 100 dB, those beyond stay, states are off by a code at
    most, and seldom; from zeros, and from where an earlier prompt ended with rows of any lengths."""
    torch.manual_seed(0)
    batch, length, E, R, N = sizes
    step = make_step(E, R, N)
    u, dt, p, xz = (codes(batch, length, width) for width in (E, E, R + 2 * N, 2 * E))
    before = codes(batch, E, N) if continued else None
    lengths = torch.randint(1, length + 1, (batch,), device=DEVICE) if continued else None
    out = torch.full((batch, length, E), 7.0, device=DEVICE)
    after = torch.zeros(batch, E, N, dtype=torch.int8, device=DEVICE)
    expected, state = out.double(), torch.zeros_like(after)
    selective_scan(step, u, dt, p, xz, before, lengths, out, after, shape=shape, device=GPU, pdl=PDL)
    selective_scan_reference(wide(step), u, dt, p, xz, before, lengths, expected, state)
    real = torch.arange(length, device=DEVICE) < (length if lengths is None else lengths[:, None])
    real = real.expand(batch, length)
    assert sqnr_db(out[real], expected[real]) > 100
    assert (out[~real] == 7).all()
    apart = (after.int() - state.int()).abs()
    assert int(apart.max()) <= 1
    assert float(apart.float().mean()) < 1e-3


def test_a_prompt_in_two_parts_is_the_whole() -> None:
    """The second part goes on from the first's codes: what rounding the state there does, and no more."""
    torch.manual_seed(1)
    E, R, N, length = 8, 2, 4, 6
    step = replace(make_step(E, R, N), state_scale=torch.tensor(1e-2, device=DEVICE))
    u, dt, p, xz = (codes(1, length, width) // 8 for width in (E, E, R + 2 * N, 2 * E))
    whole, parts = (torch.zeros(1, length, E, device=DEVICE) for _ in range(2))
    after, middle, last = (torch.zeros(1, E, N, dtype=torch.int8, device=DEVICE) for _ in range(3))
    how = {"shape": (8, 4, 2, 2), "device": GPU, "pdl": PDL}
    selective_scan(step, u, dt, p, xz, None, None, whole, after, **how)
    for part, before, target in ((slice(0, 3), None, middle), (slice(3, 6), middle, last)):
        # Contiguous, as layers give them.
        inputs = [t[:, part].contiguous() for t in (u, dt, p, xz)]
        found = torch.zeros(1, 3, E, device=DEVICE)
        selective_scan(step, *inputs, before, None, found, target, **how)
        parts[:, part] = found
    assert sqnr_db(parts, whole) > 30
    assert int((after.int() - last.int()).abs().max()) <= 1


def test_a_prompt_of_one_token_is_a_step() -> None:
    """The kernel of single tokens, from the same state, gives the same."""
    torch.manual_seed(2)
    E, R, N = 12, 4, 4
    step = make_step(E, R, N)
    p, xz, before = codes(2, R + 2 * N), codes(2, 2 * E), codes(2, E, N)
    dt = ((p[:, :R].float() @ step.dt_weight.float().t()) * step.dt_factor).round().clamp(-128, 127).to(torch.int8)
    out, expected = torch.zeros(2, 1, E, device=DEVICE), torch.zeros(2, E, device=DEVICE)
    after, state = torch.zeros_like(before), before.clone()
    u = xz[:, None, :E].contiguous()
    how = {"shape": (8, 2, 2, 2), "device": GPU, "pdl": PDL}
    selective_scan(step, u, dt[:, None], p[:, None], xz[:, None], before, None, out, after, **how)
    selective_step_reference(step, xz, p, state, expected)
    assert sqnr_db(out[:, 0], expected) > 100
    assert int((after.int() - state.int()).abs().max()) <= 1


@pytest.mark.parametrize("states", [1, 3, 4, 16, 64, 100, 256])
@pytest.mark.parametrize("channels", [64, 5120, 40960])
def test_time_is_in_registers(states: int, channels: int) -> None:
    """Threads are as many as channels times lanes, or half as many: none is left for time; all states have a place."""
    block, steps, lanes, per_lane = scan_shape(states, channels)
    assert block * lanes in (32, 64)
    assert lanes * per_lane >= states
    assert steps * per_lane * block * lanes <= 2048
    # Four codes at once.
    assert steps * min(block, lanes * per_lane) >= 4
