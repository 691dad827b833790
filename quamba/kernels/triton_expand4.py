# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""A weight of 4-bit codes as what many rows are multiplied with, made for one product and forgotten.

    W4A8:   W_nk = clamp(round(c_nk f_ng), -128, 127), int8
    W4A16:  W_nk = c_nk s_ng, rounded to float16 (74 dB), even columns before odd ones as `triton_halves` has rows

c f + 1536 in one operation of float16 rounds once, half to even, to an integer whose lowest byte is that of round(c f).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes
from quamba.kernels.triton_gemm4_half import unpack_half
from quamba.kernels.triton_gemv4_half import GROUP
from quamba.packing import unpack_int4

_INTEGERS = tl.constexpr("""{
    .reg .b32 a, t, h, m, e, l, u, p, q;
    mov.b32 h, 0x64646464; mov.b32 m, 0x64086408; mov.b32 e, 0x66006600;
    mov.b32 l, 0x65806580; mov.b32 u, 0x667F667F;
    xor.b32 a, $2, 0x88888888;
    and.b32 t, a, 0x0F0F0F0F;
    prmt.b32 p, t, h, 0x4140; prmt.b32 q, t, h, 0x4342;
    sub.f16x2 p, p, m; sub.f16x2 q, q, m;
    fma.rn.f16x2 p, p, $3, e; fma.rn.f16x2 q, q, $4, e;
    max.f16x2 p, p, l; max.f16x2 q, q, l; min.f16x2 p, p, u; min.f16x2 q, q, u;
    prmt.b32 $0, p, q, 0x6420;
    shr.u32 t, a, 4; and.b32 t, t, 0x0F0F0F0F;
    prmt.b32 p, t, h, 0x4140; prmt.b32 q, t, h, 0x4342;
    sub.f16x2 p, p, m; sub.f16x2 q, q, m;
    fma.rn.f16x2 p, p, $3, e; fma.rn.f16x2 q, q, $4, e;
    max.f16x2 p, p, l; max.f16x2 q, q, l; min.f16x2 p, p, u; min.f16x2 q, q, u;
    prmt.b32 $1, p, q, 0x6420;
}""")


@triton.jit
def unpack_integers(packed, factor, DEVICE: tl.constexpr):
    """int8 of the low and the high codes of bytes, with float16 factors of the same shape."""
    if DEVICE:
        low, high = tl.inline_asm_elementwise(
            _INTEGERS, "=r,=r,r,r,r", [packed, factor], dtype=(tl.int8, tl.int8), is_pure=True, pack=4
        )
    else:
        low, high = unpack_half(packed, False)
        low = round_codes(low.to(tl.float32) * factor.to(tl.float32)).to(tl.int8)
        high = round_codes(high.to(tl.float32) * factor.to(tl.float32)).to(tl.int8)
    return low, high


@triton.jit
def expand4_kernel(
    codes, group_scale, out, N, K: tl.constexpr, ROWS: tl.constexpr, INTEGERS: tl.constexpr, DEVICE: tl.constexpr
):
    """ROWS rows of one group of 128 columns."""
    n = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    live = (n < N)[:, None]
    group = tl.program_id(0)
    k = group * 64 + tl.arange(0, 64)
    packed = tl.load(codes + n.to(tl.int64)[:, None] * (K // 2) + k[None, :], mask=live, other=0)
    scale = tl.load(group_scale + n.to(tl.int64) * (K // 128) + group, mask=n < N, other=0.0)
    if INTEGERS:
        low, high = unpack_integers(packed, tl.broadcast_to(scale[:, None], [ROWS, 64]), DEVICE)
        both = tl.reshape(tl.join(low, high), [ROWS, 128])
        columns = group * 128 + tl.arange(0, 128)
        tl.store(out + n.to(tl.int64)[:, None] * K + columns[None, :], both, mask=live)
    else:
        low, high = unpack_half(packed, DEVICE)
        target = out + n.to(tl.int64)[:, None] * K + k[None, :]
        tl.store(target, low * scale[:, None], mask=live)
        tl.store(target + K // 2, high * scale[:, None], mask=live)


def expand4(codes: Tensor, group_scale: Tensor, *, integers: bool, device: bool = True) -> Tensor:
    """Launch it.

    Args:
        codes: uint8 [N, K / 2] (`quamba.packing`), K a multiple of 128.
        group_scale: float16 [N, K / 128]: s of W4A16 or f of W4A8.
        integers: W4A8; else W4A16.
        device: use the device's own instructions.

    Returns:
        int8 [N, K], or float16 [N, K] with even columns before odd ones.
    """
    rows, columns = len(codes), 2 * codes.shape[1]
    out = torch.empty(rows, columns, dtype=torch.int8 if integers else torch.float16, device=codes.device)
    block = 64
    expand4_kernel[(columns // GROUP, triton.cdiv(rows, block))](
        codes,
        group_scale,
        out,
        rows,
        K=columns,
        ROWS=block,
        INTEGERS=integers,
        DEVICE=device,
        num_warps=4,
        enable_fp_fusion=False,
    )
    return out


def expand4_reference(codes: Tensor, group_scale: Tensor, *, integers: bool) -> Tensor:
    """The definition, in plain PyTorch; arguments as `expand4`."""
    columns = 2 * codes.shape[1]
    values = unpack_int4(codes, columns) * group_scale.float().repeat_interleave(GROUP, 1)
    if integers:
        return values.round().clamp(-128, 127).to(torch.int8)
    return torch.cat((values[:, 0::2], values[:, 1::2]), 1).half()


__all__ = ["expand4", "expand4_kernel", "expand4_reference", "unpack_integers"]
