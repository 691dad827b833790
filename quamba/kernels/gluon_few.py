# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call, no-any-return"
# (What Triton compiles has no Python types.)
"""Some rows, up to 128, times an 8-bit weight on Hopper: what `triton_gemm` computes, bit for bit.

The time is that of reading the weight. One warp asks for tiles of it as long as there is room, which the tensor memory
accelerator brings, before the kernel before is done; the others multiply, the weight as left operand. Where its rows
are too few for all multiprocessors, several programs share rows, each with a part of the inner dimension: they leave
their sums, which are integers and exact in any order, in a workspace, and the last one adds them up.

Written in Gluon, Triton's language of layouts, where warps can be given different work. For capability 9.0.
"""

import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from quamba.kernels.gluon_common import described, next_slot, slot_before
from quamba.kernels.hopper_tiles import COUNTERS, FewTile


@gluon.jit
def _ask(x, w, xs, ws, full, empty, n, first, steps, PDL: gl.constexpr):
    """The warp that asks for tiles; for those of x only when the kernel before is done."""
    STAGES: gl.constexpr = full.shape[0]
    ROWS: gl.constexpr = w.block_type.shape[0]
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_K: gl.constexpr = w.block_type.shape[1]
    ahead = gl.minimum(steps, STAGES)
    for i in range(ahead):
        mbarrier.expect(full.index(i), (ROWS + BLOCK_M) * BLOCK_K)
        tma.async_copy_global_to_shared(w, [n, (first + i) * BLOCK_K], full.index(i), ws.index(i))
    if PDL:
        gdc_wait()
    for i in range(ahead):
        tma.async_copy_global_to_shared(x, [0, (first + i) * BLOCK_K], full.index(i), xs.index(i))
    slot = 0
    phase = 0
    for i in range(ahead, steps):
        mbarrier.wait(empty.index(slot), phase)
        mbarrier.expect(full.index(slot), (ROWS + BLOCK_M) * BLOCK_K)
        tma.async_copy_global_to_shared(w, [n, (first + i) * BLOCK_K], full.index(slot), ws.index(slot))
        tma.async_copy_global_to_shared(x, [0, (first + i) * BLOCK_K], full.index(slot), xs.index(slot))
        slot, phase = next_slot(slot, phase, STAGES)


@gluon.jit
def _multiply(
    xs,
    ws,
    full,
    empty,
    scale,
    bias,
    out,
    partial,
    arrived,
    M,
    N,
    n,
    steps,
    PARTS: gl.constexpr,
    BIAS: gl.constexpr,
    OUT: gl.constexpr,
):
    """All other warps: 16 rows of the weight each."""
    STAGES: gl.constexpr = full.shape[0]
    ROWS: gl.constexpr = ws.shape[1]
    BLOCK_M: gl.constexpr = xs.shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[ROWS // 16, 1], instr_shape=[16, BLOCK_M, 32]
    )
    acc = gl.zeros([ROWS, BLOCK_M], gl.int32, layout)
    slot = 0
    phase = 0
    for i in range(steps):
        mbarrier.wait(full.index(slot), phase)
        token = warpgroup_mma(ws.index(slot), xs.index(slot).permute((1, 0)), acc, use_acc=i > 0, is_async=True)
        acc = warpgroup_mma_wait(num_outstanding=1, deps=[token])
        mbarrier.arrive(empty.index(slot_before(slot, STAGES)), count=1, pred=i > 0)
        slot, phase = next_slot(slot, phase, STAGES)
    acc = warpgroup_mma_wait(num_outstanding=0, deps=[acc])
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    m = gl.arange(0, BLOCK_M, gl.SliceLayout(0, layout))
    finish = True
    if PARTS > 1:
        tile = gl.program_id(0)
        mine = gl.program_id(1)
        places = gl.expand_dims(rows * BLOCK_M, 1) + gl.expand_dims(m, 0)
        room = partial + tile.to(gl.int64) * (PARTS * ROWS * BLOCK_M)
        gl.store(room + mine * (ROWS * BLOCK_M) + places, acc)
        gl.thread_barrier()
        before = gl.atomic_add(arrived + tile, 1, sem="acq_rel", scope="gpu")
        finish = before == PARTS - 1
        if finish:
            gl.store(arrived + tile, 0)
            for other in range(PARTS):
                # Not from this multiprocessor's cache, which may hold what was there before.
                found = gl.load(room + other * (ROWS * BLOCK_M) + places, cache_modifier=".cg")
                acc += gl.where(other == mine, 0, found)
    if finish:
        there = n + rows < N
        y = acc.to(gl.float32) * gl.expand_dims(gl.load(scale + n + rows, mask=there, other=0.0), 1)
        if BIAS:
            y += gl.expand_dims(gl.load(bias + n + rows, mask=there, other=0.0), 1)
        live = gl.expand_dims(there, 1) & gl.expand_dims(m < M, 0)
        target = out + gl.expand_dims(n + rows, 1) + gl.expand_dims(m.to(gl.int64) * N, 0)
        if OUT == 0:
            y = gl.minimum(gl.maximum(y, -128.0), 127.0) + 12582912.0
            gl.store(target, y.to(gl.int32, bitcast=True).to(gl.int8), mask=live)
        elif OUT == 1:
            gl.store(target, y, mask=live)
        else:
            gl.store(target, gl.load(target, mask=live, other=0.0) + y, mask=live)


@gluon.jit(do_not_specialize=["M"])
def gemm_few_kernel(
    x,
    w,
    scale,
    bias,
    out,
    partial,
    arrived,
    M,
    N,
    K: gl.constexpr,
    STAGES: gl.constexpr,
    PARTS: gl.constexpr,
    BIAS: gl.constexpr,
    OUT: gl.constexpr,
    PDL: gl.constexpr,
):
    """As many rows of w as its tiles have, times all rows of x, over part program_id(1) of K."""
    ROWS: gl.constexpr = w.block_type.shape[0]
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_K: gl.constexpr = w.block_type.shape[1]
    xs = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_M, BLOCK_K], x.layout)
    ws = gl.allocate_shared_memory(gl.int8, [STAGES, ROWS, BLOCK_K], w.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    if PDL:
        gdc_launch_dependents()
    n = gl.program_id(0) * ROWS
    blocks: gl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    first = gl.program_id(1) * blocks // PARTS
    steps = (gl.program_id(1) + 1) * blocks // PARTS - first
    gl.warp_specialize(
        [
            (
                _multiply,
                (xs, ws, full, empty, scale, bias, out, partial, arrived, M, N, n, steps, PARTS, BIAS, OUT),
            ),
            (_ask, (x, w, xs, ws, full, empty, n, first, steps, PDL)),
        ],
        [1],
        [24],
    )


def gemm_few(
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    tile: FewTile,
    workspace: Tensor | None = None,
    pdl: bool = False,
) -> None:
    """Launch it; arguments as `quamba.kernels.triton_gemm.gemm`, for up to 128 rows, which begin at whole 16 bytes.

    Args:
        x: as there.
        w: as there.
        scale: as there.
        bias: as there.
        out: as there.
        kind: as there.
        tile: how the work is divided.
        workspace: of `quamba.kernels.hopper.new_workspace`, needed for more than 1 part; launches that can run at
            the same time need different ones.
        pdl: overlap with the kernel before.
    """
    (rows, inner), columns = x.shape, len(w)
    block_m = max(8, triton.next_power_of_2(rows))
    tiles = triton.cdiv(columns, tile.rows)
    arrived = partial = scale
    if tile.parts > 1:
        if workspace is None or workspace.numel() < COUNTERS + tiles * tile.parts * tile.rows * block_m:
            raise ValueError(f"{tile.parts} parts of {columns} columns need a workspace, or a larger one")
        if tiles > COUNTERS:
            raise ValueError(f"{tiles} tiles have no counters")
        arrived, partial = workspace, workspace[COUNTERS:]
    gemm_few_kernel[(tiles, tile.parts)](
        described(x, (block_m, tile.inner)),
        described(w, (tile.rows, tile.inner)),
        scale,
        scale if bias is None else bias,
        out,
        partial,
        arrived,
        rows,
        columns,
        K=inner,
        STAGES=tile.stages,
        PARTS=tile.parts,
        BIAS=bias is not None,
        OUT=kind,
        PDL=pdl,
        num_warps=tile.rows // 16,
        maxnreg=tile.registers(block_m),
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["gemm_few", "gemm_few_kernel"]
