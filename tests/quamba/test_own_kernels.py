"""Kernels of this package, and of torch, behind their border: tried before they are used, and given what they take."""

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quamba.kernels import int_matmul, ops


@pytest.mark.parametrize("name", ["triton_float_scan", "triton_round_block"])
@pytest.mark.parametrize("fault", [None, "wrong", "failing"])
def test_a_kernel_of_the_package_is_tried_first(
    name: str, fault: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that agrees with plain PyTorch is used; another is not, which is said once."""
    pytest.importorskip("triton", reason="Triton is not installed")
    module = import_module(f"quamba.kernels.{name}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

    def tried(_: torch.device) -> bool:
        if fault == "failing":
            raise RuntimeError("no such instruction\nwith a long story")
        return fault is None

    monkeypatch.setattr(module, "agrees", tried)
    ops.own_kernel.cache_clear()
    try:
        assert (ops.own_kernel(name, "cuda") is module) == (fault is None)
        assert ops.own_kernel(name, "cpu") is None
        ops.own_kernel(name, "cuda")
    finally:
        ops.own_kernel.cache_clear()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (0 if fault is None else 1)
    assert all(name in line and "\n" not in line for line in lines)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), inner=st.integers(1, 70), cut=st.integers(0, 9))
def test_integer_products_reach_cublas_in_shapes_that_it_takes(rows: int, columns: int, inner: int, cut: int) -> None:
    """More than 16 rows, multiples of 8, whole rows from an aligned beginning; the product stays exact."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-128, 128, (rows, inner + cut), dtype=torch.int8, generator=generator)[:, cut:]
    b = torch.randint(-128, 128, (columns, inner), dtype=torch.int8, generator=generator)

    def checked(left: Tensor, right: Tensor) -> Tensor:
        assert left.shape[0] > 16
        assert left.shape[1] % 16 == 0
        assert right.shape[1] % 8 == 0
        assert left.is_contiguous()
        assert right.t().is_contiguous()
        assert left.data_ptr() % 16 == right.data_ptr() % 16 == 0
        return int_matmul.int8_matmul_reference(left, right.t())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_int_mm", checked)
        found = int_matmul._by_cublas(a, b)
    assert torch.equal(found, int_matmul.int8_matmul_reference(a, b))
