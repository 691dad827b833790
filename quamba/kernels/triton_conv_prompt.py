# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The causal convolution of a prompt's codes with its SiLU, to codes.

    u_t = q8(SiLU(f (sum_k w_k q_{t - K + 1 + k}) + b); s)

A program goes along some tokens of a few channels and keeps the last ones in registers: each code is read once. Sums
are exact; behind them a division is of the device's fast kind, so that a code within some 1e-6 of the middle between
two may fall to either side.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.convolution import Convolution
from quamba.kernels.triton_common import int8_codes, only_if, power_of_two, reciprocal, wait_before
from quamba.qtypes import QMAX, QMIN

# Tokens that are read before the first of them is used.
_UNROLL = tl.constexpr(4)
_LOG2E = tl.constexpr(1.4426950408889634)
_MOST_TAPS = 4
# Channels of a program.
_BLOCK = 512


@triton.jit
def _code(x, f, b, s, DEVICE: tl.constexpr):
    """q8(SiLU(x f + b); s)."""
    v = x * f + b
    return int8_codes(v * reciprocal(s + s * power_of_two(v * -_LOG2E, DEVICE), DEVICE), DEVICE)


@triton.jit
def _before(codes, context, row, t, c, live, L, begun, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr):
    """The codes of a token at or before the program's first, as float32."""
    place = codes + (row * L + t).to(tl.int64) * W + c
    x = tl.load(place, mask=only_if(live, t >= 0), other=0)
    kept = context + (row * (K - 1) + K - 1 + t).to(tl.int64) * C + c
    x += tl.load(kept, mask=only_if(live, (t < 0) & (t > -K) & (begun > 0)), other=0)
    return x.to(tl.float32)


@triton.jit(do_not_specialize=["L", "begun"])
def conv_prompt_kernel(
    codes,
    context,
    weight,
    factor,
    bias,
    scale,
    out,
    L,
    begun,
    W: tl.constexpr,
    FIRST: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK channels of TOKENS tokens of a row; programs go through the channels first."""
    PARTS: tl.constexpr = (C + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    c = program % PARTS * BLOCK + tl.arange(0, BLOCK)
    live = c < C
    blocks = tl.cdiv(L, TOKENS)
    row, t0 = program // PARTS // blocks, program // PARTS % blocks * TOKENS
    f, b = tl.load(factor + c, mask=live, other=0.0), tl.load(bias + c, mask=live, other=0.0)
    s = tl.load(scale + c, mask=live, other=1.0)
    w0 = tl.load(weight + (K - 1) * C + c, mask=live, other=0).to(tl.float32)
    w1 = tl.load(weight + (K - 2) * C + c, mask=live, other=0).to(tl.float32)
    w2, w3 = w1, w1
    if K > 2:
        w2 = tl.load(weight + (K - 3) * C + c, mask=live, other=0).to(tl.float32)
    if K > 3:
        w3 = tl.load(weight + c, mask=live, other=0).to(tl.float32)
    wait_before(PDL)
    given = codes + FIRST
    x1 = _before(given, context, row, t0 - 1, c, live, L, begun, W, C, K)
    x2, x3 = x1, x1
    if K > 2:
        x2 = _before(given, context, row, t0 - 2, c, live, L, begun, W, C, K)
    if K > 3:
        x3 = _before(given, context, row, t0 - 3, c, live, L, begun, W, C, K)
    source = given + (row * L + t0).to(tl.int64) * W + c
    target = out + (row * L + t0).to(tl.int64) * C + c
    left = L - t0
    for start in range(0, TOKENS, _UNROLL):
        n0 = tl.load(source, mask=only_if(live, start < left), other=0)
        n1 = tl.load(source + W, mask=only_if(live, start + 1 < left), other=0)
        n2 = tl.load(source + 2 * W, mask=only_if(live, start + 2 < left), other=0)
        n3 = tl.load(source + 3 * W, mask=only_if(live, start + 3 < left), other=0)
        for i in tl.static_range(_UNROLL):
            if i == 0:
                x0 = n0.to(tl.float32)
            elif i == 1:
                x0 = n1.to(tl.float32)
            elif i == 2:
                x0 = n2.to(tl.float32)
            else:
                x0 = n3.to(tl.float32)
            acc = x0 * w0 + x1 * w1
            if K > 2:
                acc += x2 * w2
            if K > 3:
                acc += x3 * w3
            tl.store(target + i * C, _code(acc, f, b, s, DEVICE), mask=only_if(live, start + i < left))
            x3 = x2
            x2 = x1
            x1 = x0
        source += _UNROLL * W
        target += _UNROLL * C


def conv_prompt(
    codes: Tensor,
    conv: Convolution,
    context: Tensor | None,
    out: Tensor,
    *,
    tokens: int = 32,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it; plain PyTorch for other than 2 to 4 taps.

    Args:
        codes: int8 [Bt, L, W], contiguous, of which it reads C columns.
        conv: what it computes.
        context: int8 [Bt, K - 1, C], contiguous, the codes before the first token; None for zeros.
        out: int8 [Bt, L, C].
        tokens: that a program goes along.
        device: use the device's own instructions; false under the interpreter.
        pdl: overlap with the kernel before.
    """
    (batch, length, width), (taps, channels) = codes.shape, conv.weight.shape
    if not 2 <= taps <= _MOST_TAPS:
        conv_prompt_reference(codes, conv, context, out)
        return
    conv_prompt_kernel[(triton.cdiv(channels, _BLOCK) * triton.cdiv(length, tokens) * batch,)](
        codes,
        codes if context is None else context,
        conv.weight,
        conv.factor,
        conv.bias,
        conv.scale,
        out,
        length,
        int(context is not None),
        W=width,
        FIRST=conv.first,
        C=channels,
        K=taps,
        TOKENS=tokens,
        BLOCK=_BLOCK,
        DEVICE=device,
        PDL=pdl,
        num_warps=2,
        **({"launch_pdl": True} if pdl else {}),
    )


def conv_prompt_reference(codes: Tensor, conv: Convolution, context: Tensor | None, out: Tensor) -> None:
    """The definition, in plain PyTorch; arguments as `conv_prompt`."""
    (K, C), (batch, length, _) = conv.weight.shape, codes.shape
    x = codes[..., conv.first : conv.first + C].float()
    before = x.new_zeros(batch, K - 1, C) if context is None else context.float()
    whole = torch.cat([before, x], dim=1)
    acc = sum(whole[:, tap : tap + length] * conv.weight[tap].float() for tap in range(K))
    v = torch.nn.functional.silu(acc * conv.factor + conv.bias)
    out.copy_((v / conv.scale).round().clamp(QMIN, QMAX))


__all__ = ["conv_prompt", "conv_prompt_kernel", "conv_prompt_reference"]
