# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""What the Triton kernels share: rounding to codes, activations, integer dot products, early launches.

Kernels are compiled for the device where they run; nothing here is compiled at installation. Under Triton's interpreter
(`TRITON_INTERPRET=1`, any CPU) the same source runs without the device's own instructions: `DEVICE` is then false.

Launches in a chain overlap (programmatic dependent launch): each kernel first reads what never changes, its weights,
then waits for the kernel before it. Every program of every kernel waits, so that a kernel may rely on all before it.
What is read only behind that can be asked for into the second-level cache in the meantime (`prefetch`).
"""

import triton
import triton.language as tl
from triton.language.extra import cuda as tl_cuda

# (x + 1.5 * 2^23) - 1.5 * 2^23 rounds a float32 below 2^22 to an integer, half to even, as the addition does.
_ROUND = tl.constexpr(12582912.0)
_THRESHOLD = tl.constexpr(20.0)


@triton.jit
def round_codes(x):
    """Integers in [-128, 127] as float32: saturated, half to even."""
    x = tl.minimum(tl.maximum(x, -128.0), 127.0)
    return (x + _ROUND) - _ROUND


@triton.jit
def quantize(x, scale):
    """q8(x; s), as int32."""
    return round_codes(tl.math.div_rn(x, scale)).to(tl.int32)


@triton.jit
def silu(x):
    """x / (1 + exp(-x))."""
    return tl.math.div_rn(x, 1.0 + tl.exp(-x))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), x above 20, as torch has it; the rounding of 1 + exp(x) is taken back out."""
    e = tl.exp(tl.minimum(x, _THRESHOLD))
    u = 1.0 + e
    d = u - 1.0
    y = tl.where(d == 0.0, e, tl.log(u) * tl.math.div_rn(e, tl.where(d == 0.0, 1.0, d)))
    return tl.where(x > _THRESHOLD, x, y)


@triton.jit
def only_if(mask, condition):
    """A mask where a scalar condition holds: in Triton 3.9's interpreter a scalar that meets a mask loses its type."""
    return mask & (mask == condition)


@triton.jit
def power_of_two(x, DEVICE: tl.constexpr):
    """2^x by the device's own instruction; results below 2^-126 are 0."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp2(x)


@triton.jit
def reciprocal(x, DEVICE: tl.constexpr):
    """1 / x for x from 1 on, infinite too, to one unit in the last place."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1.0 / x


@triton.jit
def tanh(x, DEVICE: tl.constexpr):
    """To 2^-11, by the device's own instruction."""
    if DEVICE:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    return 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x))


@triton.jit
def int8_codes(x, DEVICE: tl.constexpr):
    """int8 of a float32: saturated, half to even; four to a register at once."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a, b, c, d; cvt.rni.s32.f32 a, $1; cvt.rni.s32.f32 b, $2; cvt.rni.s32.f32 c, $3; "
            "cvt.rni.s32.f32 d, $4; cvt.pack.sat.s8.s32.b32 c, d, c, 0; cvt.pack.sat.s8.s32.b32 $0, b, a, c; }",
            "=r,f,f,f,f",
            [x],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
    return to_codes(x)


@triton.jit
def half_codes(codes, DEVICE: tl.constexpr):
    """int8 as float16, four codes of a register at once: bytes of 1024 + 128 + q."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 x, a, b, c; xor.b32 x, $2, 0x80808080; mov.b32 c, 0x64806480; "
            "prmt.b32 a, x, 0x64646464, 0x4140; prmt.b32 b, x, 0x64646464, 0x4342; "
            "sub.f16x2 $0, a, c; sub.f16x2 $1, b, c; }",
            "=r,=r,r",
            [codes],
            dtype=tl.float16,
            is_pure=True,
            pack=4,
        )
    return codes.to(tl.float16)


@triton.jit
def dot4(a, b, acc, DEVICE: tl.constexpr):
    """acc + the dot product of the four int8 in each int32 of `a` and `b`."""
    if DEVICE:
        acc = tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, acc], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        for byte in tl.static_range(4):
            shift: tl.constexpr = 24 - 8 * byte
            acc += ((a << shift) >> 24) * ((b << shift) >> 24)
    return acc


@triton.jit
def pack4(codes):
    """int32 [n, 4] in [-128, 127] to int32 [n], the first in the lowest byte."""
    shifts = tl.arange(0, 4) * 8
    return tl.sum((codes & 0xFF) << shifts[None, :], axis=1)


@triton.jit
def to_codes(x):
    """The codes of float32 values, int8: as `round_codes`, in fewer instructions."""
    x = tl.minimum(tl.maximum(x, -128.0), 127.0)
    # The lowest bits of the sum are the integer's: nothing has to be taken off again, or converted.
    return (x + _ROUND).to(tl.int32, bitcast=True).to(tl.int8)


@triton.jit
def pack_codes(x):
    """float32 [n, 4] to their codes, int32 [n], the first in the lowest byte."""
    x = tl.minimum(tl.maximum(x, -128.0), 127.0)
    return pack4((x + _ROUND).to(tl.int32, bitcast=True))


@triton.jit
def wait_before(PDL: tl.constexpr):
    """Let the next kernel start, and wait until the one before is done and its writes can be seen."""
    if PDL:
        tl_cuda.gdc_launch_dependents()
        tl_cuda.gdc_wait()


@triton.jit
def prefetch(base, size, part, PARTS: tl.constexpr):
    """Have a share, one of PARTS, of `size` bytes from `base` on (multiples of 16) brought into the second-level cache.

    Capability 9.0: one instruction of one thread, that waits for nothing.
    """
    share = tl.cdiv(size, PARTS * 16) * 16
    start = part * share
    count = tl.minimum(tl.maximum(size - start, 0), share)
    tl.inline_asm_elementwise(
        "{ .reg .pred p, q; .reg .u32 t; mov.u32 t, %tid.x; setp.eq.u32 q, t, 0; setp.ne.and.u32 p, $2, 0, q; "
        "@p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
        "=r,l,r",
        [(base + start).to(tl.int64), count],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def convolve_past(ring, weights, factor, bias, out_scale, channels, live, position, C, K: tl.constexpr):
    """What a convolution needs besides the new code: its past, the new code's weight, factor, bias and scale."""
    acc = tl.zeros(channels.shape, dtype=tl.int32)
    for tap in tl.static_range(K - 1):
        slot = (position + 1 + tap) % K
        past = tl.load(ring + slot * C + channels, mask=live, other=0).to(tl.int32)
        acc += past * tl.load(weights + tap * C + channels, mask=live, other=0).to(tl.int32)
    last = tl.load(weights + (K - 1) * C + channels, mask=live, other=0).to(tl.int32)
    f = tl.load(factor + channels, mask=live, other=0.0)
    b = tl.load(bias + channels, mask=live, other=0.0)
    return acc, last, f, b, tl.load(out_scale + channels, mask=live, other=1.0)


@triton.jit
def convolve_new(new, acc, last, f, b, s):
    """The codes behind the convolution and its SiLU, float32 as the new ones are."""
    v = (acc + new.to(tl.int32) * last).to(tl.float32) * f + b
    return quantize(silu(v), s).to(tl.float32)


__all__ = [
    "convolve_new",
    "convolve_past",
    "dot4",
    "half_codes",
    "int8_codes",
    "only_if",
    "pack4",
    "pack_codes",
    "power_of_two",
    "prefetch",
    "quantize",
    "reciprocal",
    "round_codes",
    "silu",
    "softplus",
    "tanh",
    "to_codes",
    "wait_before",
]
