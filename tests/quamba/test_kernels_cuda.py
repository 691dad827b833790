"""The kernels of other packages, as they are called: what they get and what becomes of it. No GPU is needed."""

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quamba.flow.calibrate import Calibration, batch_documents
from quamba.flow.recipe import Recipe
from quamba.generation import generate
from quamba.generation_options import GenerationOptions, Sampling
from quamba.kernels import ops
from quamba.kernels.causal_conv1d import causal_conv1d
from quamba.kernels.chunk_scan import chunk_scan
from quamba.kernels.fused_chunk_scan import FusedChunkScan
from quamba.kernels.fused_conv1d import FusedConv1d
from quamba.kernels.fused_selective_scan import FusedSelectiveScan
from quamba.kernels.packages import FUNCTIONS
from quamba.kernels.selective_scan import selective_scan
from tests.quamba.checkpoints import small_config
from tests.quamba.kernel_cases import assert_same, chunk_inputs, selective_inputs, without_state
from tests.quamba.kernel_fakes import FakeKernels
from tests.quamba.test_rotation import model_of

PROMPTS = [[5, 9, 11], [7], list(range(40, 75))]


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """What is found is remembered for the process: forget it before and after."""
    ops.implementations.cache_clear()
    yield
    ops.implementations.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, fakes: FakeKernels, *packages: str) -> None:
    """Put modules with the fake functions where the packages' own would be; packages not named cannot be imported."""
    for root in ("causal_conv1d", "mamba_ssm"):
        monkeypatch.setitem(sys.modules, root, None)  # type: ignore[arg-type]  # what makes an import fail
    for package in packages:
        for path, name in FUNCTIONS[package]:
            parts = path.split(".")
            for depth in range(1, len(parts) + 1):
                here = ".".join(parts[:depth])
                if sys.modules.get(here) is None:
                    monkeypatch.setitem(sys.modules, here, ModuleType(here))
            setattr(sys.modules[path], name, getattr(fakes, name))


def fused(fakes: FakeKernels) -> ops.Implementations:
    return ops.Implementations(
        FusedConv1d(fakes.causal_conv1d_fn, fakes.causal_conv1d_update),
        FusedSelectiveScan(fakes.selective_scan_fn, fakes.selective_state_update),
        FusedChunkScan(fakes.mamba_chunk_scan_combined, fakes.selective_state_update),
    )


@pytest.mark.parametrize("there", [(), ("mamba-ssm",), ("causal-conv1d",)], ids=["none", "mamba-ssm", "causal-conv1d"])
def test_what_is_not_installed_is_said_once(
    there: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain PyTorch takes the place of a package that is missing; one line names all that are, and the cure."""
    install(monkeypatch, FakeKernels(), *there)
    chosen = ops.implementations("cuda")
    assert ops.implementations("cuda") is chosen
    assert (chosen.causal_conv1d is ops.PLAIN.causal_conv1d) == ("causal-conv1d" not in there)
    assert (chosen.selective_scan is ops.PLAIN.selective_scan) == ("mamba-ssm" not in there)
    assert (chosen.chunk_scan is ops.PLAIN.chunk_scan) == ("mamba-ssm" not in there)
    [line] = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    assert "pip install '.[quantizer,cuda]'" in line
    for package in FUNCTIONS:
        assert line.startswith(package) or f"and {package}" in line or package in there


def test_what_is_installed_is_used_on_cuda_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The functions reach the places where their names say; on a CPU nothing is imported and plain PyTorch runs."""
    install(monkeypatch, FakeKernels())
    assert ops.implementations("cpu") is ops.PLAIN
    fakes = FakeKernels()
    install(monkeypatch, fakes, *FUNCTIONS)
    chosen = ops.implementations("cuda")
    assert chosen == fused(fakes)
    assert not caplog.records


def test_the_blocks_ask_for_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three operations asks once, with the type of its tensors' device."""
    asked: list[str] = []

    def implementations(device_type: str) -> ops.Implementations:
        asked.append(device_type)
        return ops.PLAIN

    monkeypatch.setattr(ops, "implementations", implementations)
    ops.causal_conv1d(torch.zeros(1, 2, 8), torch.zeros(8, 4), None)
    ops.selective_scan(**selective_inputs(1, 2))
    ops.chunk_scan(**chunk_inputs(1, 2))
    assert asked == ["cpu"] * 3


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    width=st.integers(2, 4),
    channels=st.sampled_from([8, 24]),
    # Where the convolution's channels begin in in_proj's output, and how many follow them.
    begin=st.integers(0, 9),
    rest=st.integers(0, 9),
    context=st.booleans(),
    bias=st.booleans(),
    silu=st.booleans(),
)
def test_the_convolution_gets_what_its_kernel_needs(
    batch: int, length: int, width: int, channels: int, begin: int, rest: int, context: bool, bias: bool, silu: bool
) -> None:
    """Channels last in memory and aligned, whatever they are cut out of; the memory that it begins from is kept."""
    fakes, generator = FakeKernels(), torch.Generator().manual_seed(length)
    projected = torch.randn(batch, length, begin + channels + rest, generator=generator)
    x = projected[..., begin : begin + channels]
    weight = torch.randn(channels, width, generator=generator)
    shift = torch.randn(channels, generator=generator) if bias else None
    before = torch.randn(batch, width - 1, channels, generator=generator) if context else None
    kept = None if before is None else before.clone()
    found = fused(fakes).causal_conv1d(x, weight, shift, before, silu=silu)
    assert torch.allclose(found, causal_conv1d(x, weight, shift, before, silu=silu), atol=1e-5)
    assert fakes.calls == ["causal_conv1d_update" if context and length == 1 else "causal_conv1d_fn"]
    if before is not None and kept is not None:
        assert torch.equal(before, kept)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 20),
    n=st.integers(1, 6),
    state=st.booleans(),
    stride=st.sampled_from([None, 1, 4, 7, 50]),
    seed=st.integers(0, 1 << 30),
)
def test_the_selective_scan_is_the_plain_one(
    batch: int, length: int, n: int, state: bool, stride: int | None, seed: int
) -> None:
    """From any state, for ragged rows, with any checkpoints; no state is changed that was given."""
    inputs = selective_inputs(batch, length, n=n, seed=seed)
    inputs = inputs if state else without_state(inputs)
    kept = {name: tensor.clone() for name, tensor in inputs.items()}
    fakes = FakeKernels()
    assert_same(fused(fakes).selective_scan(**inputs, stride=stride), selective_scan(**inputs, stride=stride))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in inputs.items())
    step = state and length == 1 and stride is None
    assert set(fakes.calls) == {"selective_state_update" if step else "selective_scan_fn"}
    assert len(fakes.calls) == (1 if stride is None else -(-length // stride))


def test_a_state_reaches_the_selective_scan_to_the_last_bit() -> None:
    """Large and small numbers alike: what stands for the state changes nothing of it, however strong the decays."""
    state = torch.tensor([[[1e-30, -3.3333333, 7.7e12, 0.0], [1.0, 2.0**-100, -1e-7, 1e20]]])
    inputs = selective_inputs(1, 1, channels=2, n=4) | {"state": state, "A": torch.full((2, 4), -1e4)}
    nothing = inputs | {"dt": torch.zeros(1, 1, 2)}
    # With checkpoints, so that it does not take the way of single tokens.
    assert torch.equal(fused(FakeKernels()).selective_scan(**nothing, stride=1).state, state)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 20),
    groups=st.sampled_from([1, 2, 3, 6]),
    per_channel=st.booleans(),
    state=st.booleans(),
    stride=st.sampled_from([None, 1, 4, 7, 50]),
    seed=st.integers(0, 1 << 30),
)
def test_the_chunk_scan_is_the_plain_one(
    batch: int, length: int, groups: int, per_channel: bool, state: bool, stride: int | None, seed: int
) -> None:
    """From any state, for ragged rows, with any groups and checkpoints, and D for heads or for channels."""
    inputs = chunk_inputs(batch, length, groups=groups, per_channel=per_channel, seed=seed)
    inputs = inputs if state else without_state(inputs)
    kept = {name: tensor.clone() for name, tensor in inputs.items()}
    fakes = FakeKernels()
    assert_same(fused(fakes).chunk_scan(**inputs, stride=stride), chunk_scan(**inputs, stride=stride))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in inputs.items())
    step = state and length == 1 and stride is None
    assert set(fakes.calls) == {"selective_state_update" if step else "mamba_chunk_scan_combined"}


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("plain PyTorch had to run")


def test_what_a_kernel_cannot_do_plain_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other widths and channels of the convolution, too many states, other types, rows too large for one launch."""
    chosen = ops.Implementations(
        FusedConv1d(refuse, refuse), FusedSelectiveScan(refuse, refuse), FusedChunkScan(refuse, refuse)
    )
    for channels, width in ((8, 1), (8, 5), (12, 4)):
        x, weight = torch.randn(2, 3, channels), torch.randn(channels, width)
        context = torch.randn(2, width - 1, channels)
        for before in (None, context):
            found = chosen.causal_conv1d(x, weight, None, before, silu=True)
            assert torch.equal(found, causal_conv1d(x, weight, None, before, silu=True))
    many = selective_inputs(2, 3, n=257), chunk_inputs(2, 3, n=257)
    double = [{name: t.double() for name, t in given.items()} for given in (selective_inputs(2, 3), chunk_inputs(2, 3))]
    for mamba1, mamba2 in (many, double):
        assert_same(chosen.selective_scan(**mamba1), selective_scan(**mamba1))
        assert_same(chosen.chunk_scan(**mamba2), chunk_scan(**mamba2))
    for module in ("fused_selective_scan", "fused_chunk_scan", "fused_conv1d"):
        monkeypatch.setattr(f"quamba.kernels.{module}.MAX_ELEMENTS", 1)
    mamba1, mamba2 = selective_inputs(2, 3), chunk_inputs(2, 3)
    assert_same(chosen.selective_scan(**mamba1, stride=2), selective_scan(**mamba1, stride=2))
    assert_same(chosen.chunk_scan(**mamba2, stride=2), chunk_scan(**mamba2, stride=2))
    chosen.causal_conv1d(torch.randn(2, 3, 8), torch.randn(8, 4), None)


def test_many_rows_take_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches that would be too large are made a few rows at a time; the result is that of all."""
    monkeypatch.setattr("quamba.kernels.fused_selective_scan.MAX_GRID", 3)
    monkeypatch.setattr("quamba.kernels.fused_chunk_scan.MAX_GRID", 7)
    for length, stride in ((1, None), (5, None), (5, 2)):
        fakes = FakeKernels()
        wide, heads = selective_inputs(7, length, channels=3), chunk_inputs(8, length)
        assert_same(fused(fakes).selective_scan(**wide, stride=stride), selective_scan(**wide, stride=stride))
        segments = 1 if stride is None else 3
        assert len(fakes.calls) == 3 * segments
        assert_same(fused(fakes).chunk_scan(**heads, stride=stride), chunk_scan(**heads, stride=stride))


@pytest.mark.parametrize("fault", ["imprecise", "failing"])
def test_a_kernel_less_precise_than_float32_is_not_used(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """TF32 products are found out before a result is used, and said once for a model's sizes."""

    class Faulty(FakeKernels):
        def mamba_chunk_scan_combined(self, x: Tensor, *rest: Any, **how: Any) -> Any:
            if fault == "failing":
                raise RuntimeError("out of shared memory\nwith a long story")
            # 10 bits of mantissa are left.
            rounded = (x.view(torch.int32) + (1 << 12) & ~0x1FFF).view(torch.float32)
            return super().mamba_chunk_scan_combined(rounded, *rest, **how)

    chosen, inputs = fused(Faulty()), chunk_inputs(2, 9)
    for _ in range(2):
        assert_same(chosen.chunk_scan(**inputs), chunk_scan(**inputs), tolerance=0.0)
    [line] = [record.getMessage() for record in caplog.records]
    assert "plain PyTorch runs instead" in line
    assert "\n" not in line


@pytest.mark.parametrize("fault", [None, "other states", "another signature"])
def test_states_on_the_way_come_from_one_pass(fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a few rows at a time; a function that is not what it was is found out, and the scan is made in segments."""

    def states(*given: Any, **how: Any) -> Any:
        if fault == "another signature":
            raise TypeError("no such argument")
        found = fakes.states_of_chunks(*given, **how)
        return (*found[:4], found[4] * (1.0 if fault is None else 1.01), found[5])

    for length, rows in ((200, None), (128, None), (129, 2), (7, None)):
        fakes, inputs = FakeKernels(), chunk_inputs(3, length)
        if rows is not None:
            monkeypatch.setattr("quamba.kernels.fused_chunk_scan.MAX_GRID", rows * 3)
        chosen = FusedChunkScan(fakes.mamba_chunk_scan_combined, fakes.selective_state_update, states)
        assert_same(chosen(**inputs, stride=128), chunk_scan(**inputs, stride=128))
        fakes.calls.clear()
        chosen(**inputs, stride=128)
        assert ("states_of_chunks" in fakes.calls) == (fault is None)


@pytest.mark.parametrize("chosen", [None, "ieee"])
def test_triton_is_told_to_multiply_in_float32(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the chunk scan runs, and not beyond it; whoever has chosen a precision keeps it."""
    monkeypatch.delenv("TRITON_F32_DEFAULT", raising=False)
    if chosen:
        monkeypatch.setenv("TRITON_F32_DEFAULT", chosen)
    fakes = FakeKernels()
    fused(fakes).chunk_scan(**chunk_inputs(1, 3))
    assert set(fakes.precision) == {chosen or "tf32x3"}
    assert os.environ.get("TRITON_F32_DEFAULT") == chosen


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
def test_a_model_is_the_same_with_the_kernels(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of ragged rows, what calibration sees, and greedy texts, from prompts through single tokens."""
    model = model_of(small_config(family, d_model=24))
    documents = [list(range(3, 160)), list(range(9, 22))]

    def everything() -> tuple[Tensor, dict[tuple[int, str], Tensor], list[Any]]:
        ids, lengths = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([4, 2])
        calibration = Calibration(model, [Recipe(rotate=False)], batch_documents(documents, batch_size=2), ())
        list(calibration.run())
        seen = {key: observer.column_absmax() for key, observer in calibration.observers.items()}
        options = GenerationOptions(sampling=Sampling(temperature=0.0), max_new_tokens=8)
        return model(ids, lengths)[lengths[:, None] > torch.arange(4)], seen, list(generate(model, PROMPTS, options))

    logits, seen, text = everything()
    fakes = FakeKernels()
    monkeypatch.setattr(ops, "implementations", lambda _: fused(fakes))
    also_logits, also_seen, also_text = everything()
    assert (logits - also_logits).abs().max() < 1e-3
    assert all(torch.allclose(also_seen[key], values, rtol=1e-4, atol=1e-5) for key, values in seen.items())
    assert text == also_text
    scan = "selective_scan_fn" if family == "mamba1" else "mamba_chunk_scan_combined"
    assert set(fakes.calls) == {"causal_conv1d_fn", "causal_conv1d_update", "selective_state_update", scan}


def test_plain_pytorch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the block no package's kernel is asked for on any device; behind it they are again."""
    called: list[str] = []

    def implementations(device_type: str) -> ops.Implementations:
        called.append(device_type)
        return ops.PLAIN

    monkeypatch.setattr(ops, "implementations", implementations)
    x, weight = torch.ones(1, 3, 2), torch.ones(2, 4)
    with ops.plain_alone():
        ops.causal_conv1d(x, weight, None)
    assert called == []
    ops.causal_conv1d(x, weight, None)
    assert called == ["cpu"]
