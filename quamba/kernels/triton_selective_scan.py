# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Whole prompts of a quantized Mamba-1 layer behind dt_proj: the recurrence on codes, and the gate.

    dt_t = softplus(s_dt q_dt + b), 0 at and beyond a row's length
    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t^T        h float32, from codes and to codes with one scale
    out_t = (h_t C_t + D u_t) SiLU(z_t) g             g: what makes the rotation behind it orthonormal

A program takes a few channels through all of a row's time, some steps at once. A thread has PER_LANE states of one
channel at all of these steps in its registers, so that a scan along time is one fused multiply-add a state and step;
LANES threads share a channel. exp is the device's own 2^x, of A times log2(e) in float32.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import power_of_two, reciprocal, round_codes, wait_before
from quamba.kernels.triton_selective_step import SelectiveStep

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _values(codes, DEVICE: tl.constexpr):
    """int8 as float32, four codes of a register at once: bytes of 2^23 + 128 + q."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 x, a, b, c, d; xor.b32 x, $4, 0x80808080; "
            "prmt.b32 a, x, 0x4B000000, 0x7440; prmt.b32 b, x, 0x4B000000, 0x7441; "
            "prmt.b32 c, x, 0x4B000000, 0x7442; prmt.b32 d, x, 0x4B000000, 0x7443; "
            "sub.f32 $0, a, 0f4B000080; sub.f32 $1, b, 0f4B000080; "
            "sub.f32 $2, c, 0f4B000080; sub.f32 $3, d, 0f4B000080; }",
            "=f,=f,=f,=f,r",
            [codes],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )
    return codes.to(tl.float32)


@triton.jit
def _softplus(x, DEVICE: tl.constexpr):
    """max(x, 0) + log(1 + m), m = exp(-|x|): 2 artanh(m / (2 + m)), its series fitted to 8e-9 of its size."""
    m = power_of_two(-tl.abs(x) * _LOG2E, DEVICE)
    s = m * reciprocal(2.0 + m, DEVICE)
    w = s * s
    p = tl.fma(w, 0.2817465662956238, 0.2796141803264618)
    p = tl.fma(w, p, 0.40024852752685547)
    p = tl.fma(w, p, 0.6666631698608398)
    return tl.maximum(x, 0.0) + s * tl.fma(w, p, 2.0)


@triton.jit
def _codes(u_at, dt_at, z_at, p_at, real, live, kept, N: tl.constexpr):
    """Those of u, dt, z, B and C of some steps."""
    channels, states = real[:, None] & live[None, :], real[:, None] & kept[None, :]
    u = tl.load(u_at, mask=channels, other=0)
    dt = tl.load(dt_at, mask=channels, other=0)
    z = tl.load(z_at, mask=channels, other=0)
    B = tl.load(p_at, mask=states, other=0)
    C = tl.load(p_at + N, mask=states, other=0)
    return u, dt, z, B, C


@triton.jit
def _time_steps(codes, scale, shift, real, DEVICE: tl.constexpr):
    dt = _softplus(_values(codes, DEVICE) * scale[None, :] + shift[None, :], DEVICE)
    return tl.where(real[:, None], dt, 0.0)


@triton.jit
def _gate(codes, scale, gain, DEVICE: tl.constexpr):
    z = _values(codes, DEVICE) * scale[None, :]
    return z * reciprocal(1.0 + power_of_two(z * -_LOG2E, DEVICE), DEVICE) * gain


@triton.jit
def _of_threads(x, STEPS: tl.constexpr, LANES: tl.constexpr, PER_LANE: tl.constexpr):
    """[time, states] to [time, states of a thread, 1, threads of a channel]."""
    return tl.permute(tl.reshape(x, [STEPS, LANES, PER_LANE]), [0, 2, 1])[:, :, None, :]


@triton.jit
def _after(a0, b0, a1, b1):
    """h -> a0 h + b0, then h -> a1 h + b1."""
    return a0 * a1, tl.fma(a1, b0, b1)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _states(decay, inputs, t, STEPS: tl.constexpr, DEVICE: tl.constexpr):
    """The states at all steps, [STEPS, ...], and the last, [1, ...]; `inputs` of the first have what was before.

    Conditions on `t` are known when it is compiled: they choose registers.
    """
    if DEVICE:
        _, S = tl.associative_scan((decay, inputs), 0, _after)
        bits = tl.where((t == STEPS - 1)[:, None, None, None], S.to(tl.int32, bitcast=True), 0)
        last = tl.reduce(bits, 0, _either).to(tl.float32, bitcast=True)
    else:
        # The interpreter would scan number by number.
        S = inputs
        for i in tl.static_range(1, STEPS):
            last = tl.sum(tl.where((t == i - 1)[:, None, None, None], S, 0.0), axis=0)
            S = tl.where((t == i)[:, None, None, None], tl.fma(decay, tl.broadcast_to(last[None], S.shape), inputs), S)
        last = tl.sum(tl.where((t == STEPS - 1)[:, None, None, None], S, 0.0), axis=0)
    return S, last[None]


@triton.jit(do_not_specialize=["L"])
def selective_scan_kernel(
    u,
    dt,
    parameters,
    z,
    u_scale,
    dt_scale,
    dt_bias,
    parameter_scale,
    z_scale,
    A,
    D,
    state_scale,
    before,
    lengths,
    out,
    after,
    gain,
    L,
    E,
    u_stride,
    dt_stride,
    p_stride,
    z_stride,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
    LANES: tl.constexpr,
    PER_LANE: tl.constexpr,
    MOST: tl.constexpr,
    RAGGED: tl.constexpr,
    BEFORE: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK channels of a row; programs go through a row's channels first."""
    blocks = tl.cdiv(E, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    e = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    t = tl.arange(0, STEPS)
    k = tl.arange(0, LANES * PER_LANE)
    live, kept = e < E, k < N
    # [time, states of a thread, channels, threads of a channel]; without it the same for all time
    n = tl.arange(0, PER_LANE)[None, :, None, None] + tl.arange(0, LANES)[None, None, None, :] * PER_LANE
    states = e[None, None, :, None] * N + n
    inside = live[None, None, :, None] & (n < N)
    a = tl.load(A + states, mask=inside, other=0.0) * _LOG2E
    shift = tl.load(dt_bias + e, mask=live, other=0.0)
    sd, sz = tl.load(dt_scale + e, mask=live, other=0.0), tl.load(z_scale + e, mask=live, other=0.0)
    su, sp, ss = tl.load(u_scale), tl.load(parameter_scale), tl.load(state_scale)
    skip = tl.load(D + e, mask=live, other=0.0) * su
    wait_before(PDL)
    h = tl.zeros([1, PER_LANE, BLOCK, LANES], dtype=tl.float32)
    if BEFORE:
        h = tl.load(before + row * E * N + states, mask=inside, other=0).to(tl.float32) * ss
    end = L
    if RAGGED:
        end = tl.load(lengths + row).to(tl.int32)
    at = row * L + t
    u_at = u + at[:, None] * u_stride + e[None, :]
    dt_at = dt + at[:, None] * dt_stride + e[None, :]
    z_at = z + at[:, None] * z_stride + e[None, :]
    p_at = parameters + at[:, None] * p_stride + k[None, :]
    out_at = out + at[:, None] * E + e[None, :]
    qu, qd, qz, qB, qC = _codes(u_at, dt_at, z_at, p_at, t < end, live, kept, N)
    v, B, C = _values(qu, DEVICE), _values(qB, DEVICE), _values(qC, DEVICE)
    delta = _time_steps(qd, sd, shift, t < end, DEVICE)
    gate = _gate(qz, sz, gain, DEVICE)
    for start in range(0, end if DEVICE else MOST, STEPS):
        # The next codes are on their way while these are worked with.
        u_at += STEPS * u_stride
        dt_at += STEPS * dt_stride
        z_at += STEPS * z_stride
        p_at += STEPS * p_stride
        later = start + STEPS + t < end
        qu, qd, qz, qB, qC = _codes(u_at, dt_at, z_at, p_at, later, live, kept, N)
        decay = power_of_two(delta[:, None, :, None] * a, DEVICE)
        b = (delta * v * (su * sp))[:, None, :, None] * _of_threads(B, STEPS, LANES, PER_LANE)
        b = tl.where((t == 0)[:, None, None, None], tl.fma(decay, tl.broadcast_to(h, decay.shape), b), b)
        S, h = _states(decay, b, t, STEPS, DEVICE)
        # Of B and C threads have one at a time.
        y = tl.sum(tl.sum(S * _of_threads(C, STEPS, LANES, PER_LANE), axis=1), axis=2) * sp
        tl.store(out_at, (y + v * skip[None, :]) * gate, mask=(start + t < end)[:, None] & live[None, :])
        out_at += STEPS * E
        v, B, C = _values(qu, DEVICE), _values(qB, DEVICE), _values(qC, DEVICE)
        delta = _time_steps(qd, sd, shift, later, DEVICE)
        gate = _gate(qz, sz, gain, DEVICE)
    tl.store(after + row * E * N + states, round_codes(tl.math.div_rn(h, ss)).to(tl.int8), mask=inside)


# Channels of all rows, below which more threads share one, and from which on a thread has two.
_FEW, _MANY = 3000, 10000


def scan_shape(states: int, channels: int) -> tuple[int, int, int, int]:
    """BLOCK, STEPS, LANES, PER_LANE for a warp and so many channels of all rows (measured on an H100 with 16 states).

    A warp's threads are channels and lanes, so that none is left for time, which lies in registers.
    """
    padded: int = triton.next_power_of_2(states)
    lanes = min(16, max(1, padded // (2 if channels < _FEW else 4)))
    per_lane, each = padded // lanes, 1 if channels < _MANY else 2
    return each * 32 // lanes, max(1, min(16, 64 // (per_lane * each))), lanes, per_lane


def selective_scan(
    step: SelectiveStep,
    conv: Tensor,
    dt: Tensor,
    parameters: Tensor,
    projected: Tensor,
    before: Tensor | None,
    lengths: Tensor | None,
    out: Tensor,
    after: Tensor,
    *,
    shape: tuple[int, int, int, int] | None = None,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        step: the layer.
        conv: codes u behind the convolution, int8 [Bt, L, E].
        dt: dt_proj's codes, int8 [Bt, L, E].
        parameters: x_proj's codes (dt, B, C), int8 [Bt, L, R + 2N].
        projected: in_proj's codes (x, z), int8 [Bt, L, 2E].
        before: codes of the state before the first token, int8 [Bt, E, N]; None for zeros.
        lengths: real tokens of each row, int64 [Bt], at most L; None: all.
        out: float32 [Bt, L, E]; at and beyond a row's length it is left as it is.
        after: codes of the state after the last real token, int8 [Bt, E, N].
        shape: of a program, as `scan_shape` chooses it; None: that.
        device: use the device's own instructions; false under the interpreter.
        pdl: overlap with the kernel before.
    """
    (batch, length, channels), (states, rank) = conv.shape, (step.A.shape[1], step.dt_weight.shape[1])
    block, steps, lanes, per_lane = shape or scan_shape(states, batch * channels)
    selective_scan_kernel[(triton.cdiv(channels, block) * batch,)](
        conv,
        dt,
        parameters[..., rank:],
        projected[..., channels:],
        step.u_scale,
        step.dt_scale,
        step.dt_bias,
        step.parameter_scale,
        step.z_scale,
        step.A,
        step.D,
        step.state_scale,
        after if before is None else before,
        after if lengths is None else lengths,
        out,
        after,
        step.gain,
        length,
        channels,
        conv.stride(1),
        dt.stride(1),
        parameters.stride(1),
        projected.stride(1),
        N=states,
        BLOCK=block,
        STEPS=steps,
        LANES=lanes,
        PER_LANE=per_lane,
        # The interpreter counts to constants only.
        MOST=0 if device else length,
        RAGGED=lengths is not None,
        BEFORE=before is not None,
        DEVICE=device,
        PDL=pdl,
        num_warps=1,
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["scan_shape", "selective_scan", "selective_scan_kernel"]
