# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call, no-any-return"
# (What Triton compiles has no Python types.)
"""Very many rows times an 8-bit weight on Hopper: what `triton_gemm` computes, bit for bit.

In each program one warp asks for tiles of x and w, which the tensor memory accelerator brings, with zeros for what lies
outside; two or three groups of four warps multiply 64 rows each with the same tile of w. They wait for tiles alone and
never for each other, so that some scale and write while others multiply. Programs stay, one a multiprocessor, and go
from tile to tile.

Written in Gluon, Triton's language of layouts, where warps can be given different work. For capability 9.0.
"""

import functools

import torch
import triton
from torch import Tensor
from triton._C.libtriton import ir
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from quamba.kernels.gluon_common import described, next_slot, slot_before
from quamba.kernels.hopper_tiles import HopperTile


@builtin
def _add_from_shared(descriptor, place, source, _semantic=None):
    """The accelerator's addition to global memory; as `tma.async_copy_shared_to_global` otherwise."""
    place = _semantic._convert_to_ir_values(place, require_i64=False)
    _semantic.builder.create_async_tma_reduce(ir.DESCRIPTOR_REDUCE_KIND.ADD, descriptor.handle, place, source.handle)


@gluon.jit
def _place(program, M, N, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP: gl.constexpr):
    """First row and column of a tile; programs go through GROUP tiles of rows before the next columns."""
    blocks_m, blocks_n = gl.cdiv(M, BLOCK_M), gl.cdiv(N, BLOCK_N)
    first = program // (GROUP * blocks_n) * GROUP
    size = gl.minimum(blocks_m - first, GROUP)
    m = (first + program % (GROUP * blocks_n) % size) * BLOCK_M
    return m, program % (GROUP * blocks_n) // size * BLOCK_N


@gluon.jit
def _fetch(x, w, xs, ws, full, empty, M, N, K: gl.constexpr, C: gl.constexpr, GROUP: gl.constexpr):
    """The warp that asks for tiles."""
    CONSUMERS: gl.constexpr = C
    STAGES: gl.constexpr = full.shape[0]
    BLOCK_N: gl.constexpr = w.block_type.shape[0]
    BLOCK_K: gl.constexpr = w.block_type.shape[1]
    BLOCK_M: gl.constexpr = 64 * CONSUMERS
    tiles = gl.cdiv(M, BLOCK_M) * gl.cdiv(N, BLOCK_N)
    slot = 0
    phase = 1
    for program in range(gl.program_id(0), tiles, gl.num_programs(0)):
        m, n = _place(program, M, N, BLOCK_M, BLOCK_N, GROUP)
        for k in range(0, K, BLOCK_K):
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(full.index(slot), (BLOCK_M + BLOCK_N) * BLOCK_K)
            for i in gl.static_range(CONSUMERS):
                place = [m + 64 * i, k]
                tma.async_copy_global_to_shared(x, place, full.index(slot), xs.index(slot * CONSUMERS + i))
            tma.async_copy_global_to_shared(w, [n, k], full.index(slot), ws.index(slot))
            slot, phase = next_slot(slot, phase, STAGES)


@gluon.jit
def _write(
    acc,
    m,
    n,
    stage,
    scale,
    bias,
    out,
    M,
    N,
    WIDTH: gl.constexpr,
    BIAS: gl.constexpr,
    OUT: gl.constexpr,
    STAGED: gl.constexpr,
):
    """Scale some columns of 64 rows, WIDTH at a time, and write them; by the accelerator where they are STAGED."""
    BLOCK: gl.constexpr = acc.shape[1]
    if BLOCK > WIDTH:
        HALF: gl.constexpr = BLOCK // 2
        layout: gl.constexpr = gl.NVMMADistributedLayout(
            version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, min(HALF, 128), 32]
        )
        left, right = gl.split(gl.permute(gl.reshape(acc, [64, 2, HALF]), (0, 2, 1)))
        _write(gl.convert_layout(left, layout), m, n, stage, scale, bias, out, M, N, WIDTH, BIAS, OUT, STAGED)
        _write(gl.convert_layout(right, layout), m, n + HALF, stage, scale, bias, out, M, N, WIDTH, BIAS, OUT, STAGED)
    else:
        columns = n + gl.arange(0, BLOCK, gl.SliceLayout(0, acc.type.layout))
        there = columns < N
        y = acc.to(gl.float32) * gl.expand_dims(gl.load(scale + columns, mask=there, other=0.0), 0)
        if BIAS:
            y += gl.expand_dims(gl.load(bias + columns, mask=there, other=0.0), 0)
        if OUT == 0:
            # 1.5 * 2^23 rounds, half to even; the sum's lowest byte is the code.
            y = gl.minimum(gl.maximum(y, -128.0), 127.0) + 12582912.0
            y = y.to(gl.int32, bitcast=True).to(gl.int8)
        if not STAGED:
            rows = m + gl.arange(0, 64, gl.SliceLayout(1, acc.type.layout))
            live = gl.expand_dims(rows < M, 1) & gl.expand_dims(there, 0)
            target = out + gl.expand_dims(rows.to(gl.int64) * N, 1) + gl.expand_dims(columns, 0)
            if OUT == 2:
                y += gl.load(target, mask=live, other=0.0)
            gl.store(target, y, mask=live)
        else:
            tma.store_wait(pendings=0)
            stage.store(y)
            fence_async_shared()
            if OUT == 2:
                _add_from_shared(out, [m, n], stage)
            else:
                tma.async_copy_shared_to_global(out, [m, n], stage)


@gluon.jit
def _multiply(
    xs,
    ws,
    full,
    empty,
    stages,
    scale,
    bias,
    out,
    M,
    N,
    K: gl.constexpr,
    C: gl.constexpr,
    GROUP: gl.constexpr,
    WIDTH: gl.constexpr,
    BIAS: gl.constexpr,
    OUT: gl.constexpr,
    STAGED: gl.constexpr,
    WHICH: gl.constexpr,
):
    """Four warps that multiply 64 rows, number WHICH of the tile's."""
    STAGES: gl.constexpr = full.shape[0]
    BLOCK_N: gl.constexpr = ws.shape[1]
    BLOCK_K: gl.constexpr = ws.shape[2]
    BLOCK_M: gl.constexpr = 64 * C
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, min(BLOCK_N, 128), 32]
    )
    tiles = gl.cdiv(M, BLOCK_M) * gl.cdiv(N, BLOCK_N)
    slot = 0
    phase = 0
    for program in range(gl.program_id(0), tiles, gl.num_programs(0)):
        m, n = _place(program, M, N, BLOCK_M, BLOCK_N, GROUP)
        acc = gl.zeros([64, BLOCK_N], gl.int32, layout)
        for k in range(0, K, BLOCK_K):
            mbarrier.wait(full.index(slot), phase)
            token = warpgroup_mma(
                xs.index(slot * C + WHICH), ws.index(slot).permute((1, 0)), acc, use_acc=k > 0, is_async=True
            )
            # The product before this one is done: its tile's place can be filled again.
            acc = warpgroup_mma_wait(num_outstanding=1, deps=[token])
            mbarrier.arrive(empty.index(slot_before(slot, STAGES)), count=1, pred=k > 0)
            slot, phase = next_slot(slot, phase, STAGES)
        acc = warpgroup_mma_wait(num_outstanding=0, deps=[acc])
        mbarrier.arrive(empty.index(slot_before(slot, STAGES)), count=1)
        _write(acc, m + 64 * WHICH, n, stages.index(WHICH), scale, bias, out, M, N, WIDTH, BIAS, OUT, STAGED)
    if STAGED:
        tma.store_wait(pendings=0)


@gluon.jit(do_not_specialize=["M"])
def gemm_hopper_kernel(
    x,
    w,
    scale,
    bias,
    out,
    M,
    N,
    K: gl.constexpr,
    C: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
    WIDTH: gl.constexpr,
    BIAS: gl.constexpr,
    OUT: gl.constexpr,
    STAGED: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """Tiles of 64 C rows and as many columns as w's tiles have rows; REGISTERS of each thread that multiplies."""
    BLOCK_N: gl.constexpr = w.block_type.shape[0]
    BLOCK_K: gl.constexpr = w.block_type.shape[1]
    xs = gl.allocate_shared_memory(gl.int8, [STAGES * C, 64, BLOCK_K], x.layout)
    ws = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_N, BLOCK_K], w.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    stages = xs
    if STAGED:
        stages = gl.allocate_shared_memory(out.dtype, [C, 64, WIDTH], out.layout)
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=C)
    fence_async_shared()
    ZERO: gl.constexpr = 0
    ONE: gl.constexpr = 1
    TWO: gl.constexpr = 2
    if C == 2:
        gl.warp_specialize(
            [
                (
                    _multiply,
                    (xs, ws, full, empty, stages, scale, bias, out, M, N, K, C, GROUP, WIDTH, BIAS, OUT, STAGED, ZERO),
                ),
                (
                    _multiply,
                    (xs, ws, full, empty, stages, scale, bias, out, M, N, K, C, GROUP, WIDTH, BIAS, OUT, STAGED, ONE),
                ),
                (_fetch, (x, w, xs, ws, full, empty, M, N, K, C, GROUP)),
            ],
            [4, 1],
            [REGISTERS, 24],
        )
    else:
        gl.warp_specialize(
            [
                (
                    _multiply,
                    (xs, ws, full, empty, stages, scale, bias, out, M, N, K, C, GROUP, WIDTH, BIAS, OUT, STAGED, ZERO),
                ),
                (
                    _multiply,
                    (xs, ws, full, empty, stages, scale, bias, out, M, N, K, C, GROUP, WIDTH, BIAS, OUT, STAGED, ONE),
                ),
                (
                    _multiply,
                    (xs, ws, full, empty, stages, scale, bias, out, M, N, K, C, GROUP, WIDTH, BIAS, OUT, STAGED, TWO),
                ),
                (_fetch, (x, w, xs, ws, full, empty, M, N, K, C, GROUP)),
            ],
            [4, 4, 1],
            [REGISTERS, REGISTERS, 24],
        )


def gemm_hopper(
    x: Tensor, w: Tensor, scale: Tensor, bias: Tensor | None, out: Tensor, *, kind: int, tile: HopperTile
) -> None:
    """Launch it; arguments as `quamba.kernels.triton_gemm.gemm`, for tensors whose rows begin at whole 16 bytes."""
    (rows, inner), columns = x.shape, len(w)
    staged = tile.staged and out.shape[1] * out.element_size() % 16 == 0
    tiles = triton.cdiv(rows, 64 * tile.consumers) * triton.cdiv(columns, tile.columns)
    gemm_hopper_kernel[(min(tiles, _processors(x.device)),)](
        described(x, (64, tile.inner)),
        described(w, (tile.columns, tile.inner)),
        scale,
        scale if bias is None else bias,
        described(out, (64, tile.width)) if staged else out,
        rows,
        columns,
        K=inner,
        C=tile.consumers,
        STAGES=tile.stages,
        GROUP=tile.group,
        WIDTH=tile.width,
        BIAS=bias is not None,
        OUT=kind,
        STAGED=staged,
        REGISTERS=232 if tile.consumers == 2 else 160,
        num_warps=4,
        enable_fp_fusion=False,
    )


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


__all__ = ["gemm_hopper", "gemm_hopper_kernel"]
