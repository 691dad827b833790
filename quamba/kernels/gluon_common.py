# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"
# (What Triton compiles has no Python types.)
"""What the kernels in Gluon have in common: places in shared memory that tiles take in turn, and what brings these."""

import functools

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor


@gluon.jit
def next_slot(slot, phase, STAGES: gl.constexpr):
    """The place after this one, and the phase of its barrier, which changes with each round."""
    slot += 1
    wrap = slot == STAGES
    return gl.where(wrap, 0, slot), gl.where(wrap, phase ^ 1, phase)


@gluon.jit
def slot_before(slot, STAGES: gl.constexpr):
    """The place before this one."""
    return gl.where(slot == 0, STAGES - 1, slot - 1)


@functools.cache
def _layout(width: int, bits: int) -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout(swizzle_byte_width=min(128, width * bits // 8), element_bitwidth=bits, rank=2)


def described(tensor: Tensor, block: tuple[int, int]) -> TensorDescriptor:
    """A matrix as the tensor memory accelerator takes it, in blocks; rows may lie apart.

    It is not checked here, which would take longer than a small product: `quamba.kernels.hopper` has seen to it.
    """
    made = object.__new__(TensorDescriptor)
    made.base, made.padding = tensor, "zero"
    made.shape, made.strides = list(tensor.shape), [tensor.stride(0), 1]
    made.block_shape, made.layout = list(block), _layout(block[1], 8 * tensor.element_size())
    return made


__all__ = ["described", "next_slot", "slot_before"]
