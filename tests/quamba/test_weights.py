"""Weights of 8 and 4 bits: what is stored is what was used, and layers compute what their codes say."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.errors import ModelError, RecipeError
from quamba.granularity import SCHEMES, Granularity, PerChannel, PerGroup, PerTensor, WeightScheme
from quamba.nn.embedding import Embedding, QEmbedding
from quamba.nn.linear import Linear, QLinear
from quamba.packing import pack_int4, unpack_int4
from quamba.primitives import QuantizedWeight, quantize_weight
from quamba.qtypes import QTensor, quantize_int8, scale_of

ALL = [*SCHEMES.values(), WeightScheme(8, PerTensor(), 8), WeightScheme(4, PerGroup(48), 8)]
INTEGER = [scheme for scheme in ALL if scheme.activation_bits == 8]
# One group and less, several, several with a shorter last one; even and odd.
WIDTHS = [1, 37, 128, 256, 301]


def name_of(scheme: WeightScheme) -> str:
    return f"{scheme.name}-{scheme.granularity}"


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def away_from_zero(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Weights of at least 0.1, so that no scale meets its lower limit."""
    w = randn(rows, columns, seed=seed)
    return w + 0.1 * w.sign()


def groups(weight: QuantizedWeight) -> Iterator[tuple[torch.Tensor, int]]:
    """Columns of codes with the index of their group."""
    size = weight.scheme.group_size
    assert size is not None
    for index, start in enumerate(range(0, weight.codes.shape[1], size)):
        yield torch.arange(start, min(start + size, weight.codes.shape[1])), index


def integers(weight: QuantizedWeight) -> torch.Tensor:
    """The integers that W4A8 expands to, from the definition, in float64."""
    assert weight.group_scale is not None
    result = torch.empty(weight.codes.shape, dtype=torch.float64)
    for columns, index in groups(weight):
        products = weight.codes[:, columns].double() * weight.group_scale[:, index, None].double()
        result[:, columns] = products.round().clamp(-128, 127)
    return result


def values(weight: QuantizedWeight) -> torch.Tensor:
    """The values of a weight, from the definition, in float64."""
    if weight.group_scale is None:
        assert weight.weight_scale is not None
        return weight.codes.double() * weight.weight_scale[:, None].double()
    if weight.weight_scale is not None:
        return integers(weight) * weight.weight_scale[:, None].double()
    result = torch.empty(weight.codes.shape, dtype=torch.float64)
    for columns, index in groups(weight):
        result[:, columns] = weight.codes[:, columns].double() * weight.group_scale[:, index, None].double()
    return result


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.integers(0, 9), max_size=2), columns=st.integers(1, 33), seed=st.integers(0, 1 << 30))
def test_packing_is_reversible(shape: list[int], columns: int, seed: int) -> None:
    """unpack(pack(q)) = q for any shape, odd rows too, and rows do not share bytes."""
    codes = torch.randint(-8, 8, (*shape, columns), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))
    packed = pack_int4(codes)
    assert packed.shape == (*shape, (columns + 1) // 2)
    assert torch.equal(unpack_int4(packed, columns), codes)


def test_the_packed_layout() -> None:
    """The even column is the low nibble, in two's complement; a byte that is half empty ends in a 0."""
    packed = pack_int4(torch.tensor([[1, -2, 7], [-8, -1, -3]], dtype=torch.int8))
    assert packed.tolist() == [[0xE1, 0x07], [0xF8, 0x0D]]


def test_what_does_not_fit_is_not_packed() -> None:
    """No code is cut to its low bits, and no row is read at another length."""
    for wrong in (8, -9):
        with pytest.raises(ValueError, match="do not fit"):
            pack_int4(torch.tensor([[0, wrong]], dtype=torch.int8))
    with pytest.raises(ValueError, match="3 bytes, not 2"):
        unpack_int4(torch.zeros(4, 2, dtype=torch.uint8), 5)


def test_the_table_of_schemes() -> None:
    """Each row has its name, and is found by its bits."""
    assert list(SCHEMES) == ["W8A8", "W4A8", "W4A16"]
    for name, scheme in SCHEMES.items():
        assert scheme.name == name
        assert WeightScheme.of(scheme.num_bits, scheme.activation_bits) == scheme
    assert SCHEMES["W8A8"].granularity == PerChannel()
    assert SCHEMES["W4A8"].granularity == SCHEMES["W4A16"].granularity == PerGroup(128)


@pytest.mark.parametrize(
    ("bits", "granularity", "activation_bits", "says"),
    [
        (8, PerChannel(), 16, "W8A16 cannot be built; use one of W8A8, W4A8, W4A16"),
        (3, PerGroup(), 8, "W3A8 cannot be built"),
        (4, PerGroup(), 4, "W4A4 cannot be built"),
        (4, PerChannel(), 8, "W4A8 takes scales PerGroup, not PerChannel"),
        (4, PerTensor(), 16, "W4A16 takes scales PerGroup, not PerTensor"),
        (8, PerGroup(), 8, "W8A8 takes scales PerChannel or PerTensor, not PerGroup"),
    ],
)
def test_impossible_schemes_are_refused(bits: int, granularity: Granularity, activation_bits: int, says: str) -> None:
    """What cannot be built cannot be held, and the message says what can."""
    with pytest.raises(RecipeError, match=says):
        WeightScheme(bits, granularity, activation_bits)


def test_a_group_has_a_channel() -> None:
    """A group of nothing is refused."""
    with pytest.raises(RecipeError, match="at least 1 input channel, not 0"):
        PerGroup(0)


@settings(max_examples=40, deadline=None)
@given(
    scheme=st.sampled_from(ALL),
    rows=st.integers(1, 6),
    columns=st.integers(1, 300),
    size=st.floats(1e-2, 1e2),
    seed=st.integers(0, 1 << 30),
)
def test_values_are_what_codes_and_scales_say(
    scheme: WeightScheme, rows: int, columns: int, size: float, seed: int
) -> None:
    """dequantize() is the definition, codes stay in range, and no weight is further off than rounding explains."""
    w = away_from_zero(rows, columns, seed) * size
    weight = quantize_weight(w, scheme)
    expected = values(weight)
    assert torch.allclose(weight.dequantize().double(), expected, rtol=1e-6, atol=0)
    error = (expected - w.double()).abs()
    if weight.group_scale is None:
        assert weight.weight_scale is not None
        assert bool((error <= weight.weight_scale[:, None].double() * (0.5 + 1e-4)).all())
        return
    assert int(weight.codes.min()) >= -8
    assert int(weight.codes.max()) <= 7
    for part, index in groups(weight):
        scale = weight.group_scale[:, index, None].double()
        if weight.weight_scale is None:
            # Half a step, and what float16 takes from the largest code.
            assert bool((error[:, part] <= scale * (0.5 + 7.5 * 2**-11 + 1e-4)).all())
        else:
            # The second level rounds once more.
            step = weight.weight_scale[:, None].double()
            assert bool((error[:, part] <= step * (scale * (0.5 + 7.5 * 2**-11 + 1e-4) + 0.5)).all())


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_group_format(columns: int) -> None:
    """s_g = 2 max|w| / 15 rounded to float16, then the codes; up to 128 channels max|w| / 7 and codes -7..7."""
    w = randn(20, columns, seed=columns)
    weight = quantize_weight(w, SCHEMES["W4A16"])
    assert weight.weight_scale is None
    assert weight.group_scale is not None
    assert weight.group_scale.dtype == torch.float16
    assert weight.group_scale.shape == (20, (columns + 127) // 128)
    lowest = -7 if columns <= 128 else -8
    for part, index in groups(weight):
        absmax = w[:, part].abs().amax(dim=1)
        scale = (absmax / 7 if columns <= 128 else 2 * absmax / 15).half()
        assert torch.equal(weight.group_scale[:, index], scale)
        codes = (w[:, part] / scale.float()[:, None]).round().clamp(lowest, 7)
        assert torch.equal(weight.codes[:, part].float(), codes)


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_two_levels(columns: int) -> None:
    """s_ch = max|w'| / 127 of the row at 4 bits, f = s_g / s_ch in float16, and codes on the steps f s_ch."""
    w = randn(20, columns, seed=columns)
    in_float, weight = quantize_weight(w, SCHEMES["W4A16"]), quantize_weight(w, SCHEMES["W4A8"])
    assert in_float.group_scale is not None
    assert weight.group_scale is not None
    assert weight.weight_scale is not None
    assert weight.weight_scale.dtype == torch.float32
    assert torch.equal(weight.weight_scale, scale_of(values(in_float).abs().amax(dim=1)))
    factor = in_float.group_scale.float() / weight.weight_scale[:, None]
    assert torch.allclose(weight.group_scale.float(), factor, rtol=2**-10)
    assert torch.equal(weight.operand().double(), integers(weight))
    assert weight.operand().dtype == torch.int8
    assert int(weight.operand().abs().max()) >= 126
    lowest = -7 if columns <= 128 else -8
    for part, index in groups(weight):
        step = weight.group_scale[:, index].float() * weight.weight_scale
        assert torch.equal(weight.codes[:, part].float(), (w[:, part] / step[:, None]).round().clamp(lowest, 7))


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-12, 1e-7, 1e-5, 1e4, 1e9])
def test_no_scale_is_zero_or_infinite(scheme: WeightScheme, size: float) -> None:
    """Weights of any size, beside zeros: scales stay positive and finite, zeros have code 0, values are finite."""
    w = randn(4, 300) * size
    w[0], w[1, :128], w[2, 7] = 0, 0, 3 * size
    weight = quantize_weight(w, scheme)
    for scale in (weight.weight_scale, weight.group_scale):
        if scale is not None:
            assert bool(((scale > 0) & torch.isfinite(scale)).all())
    assert not weight.codes[0].any()
    assert not weight.codes[1, :128].any()
    assert bool(torch.isfinite(weight.dequantize()).all())


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
def test_weights_that_are_no_numbers_are_refused(scheme: WeightScheme) -> None:
    """A NaN does not become a code."""
    w = randn(3, 20)
    w[1, 4] = torch.nan
    with pytest.raises(ModelError, match=r"weight \[3, 20\] holds 1 values"):
        quantize_weight(w, scheme)


def test_a_scale_for_each_block_of_rows() -> None:
    """Per tensor one scale is shared by all rows, or by those of a block; blocks must make up the rows."""
    w = randn(10, 30) * torch.arange(1, 11)[:, None]
    scheme = WeightScheme(8, PerTensor(), 8)
    scale = quantize_weight(w, scheme).weight_scale
    assert scale is not None
    assert torch.equal(scale, scale_of(w.abs().max()).expand(10))
    layer = QLinear.quantize(Linear(w), torch.tensor(0.1), scheme=scheme, blocks=(3, 2, 5))
    expected = [scale_of(part.abs().max()).expand(len(part)) for part in torch.split(w, [3, 2, 5])]
    assert layer.weight_scale is not None
    assert torch.equal(layer.weight_scale, torch.cat(expected))
    with pytest.raises(ValueError, match="are 9, but the weight has 10"):
        quantize_weight(w, scheme, blocks=(4, 5))


def layer_of(scheme: WeightScheme, columns: int = 301, *, coded: bool = False, bias: bool = True) -> QLinear:
    linear = Linear(randn(24, columns, seed=1), randn(24, seed=2) if bias else None)
    if scheme.activation_bits == 16:
        return QLinear.quantize(linear, None, scheme=scheme)
    out_scale = torch.linspace(0.3, 0.6, 24) if coded else None
    return QLinear.quantize(linear, torch.tensor(0.03), out_scale, scheme=scheme)


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_the_product_of_its_codes(scheme: WeightScheme, columns: int, bias: bool) -> None:
    """A layer's output is the product with the values that its stored codes and scales define."""
    layer = layer_of(scheme, columns, bias=bias)
    x = randn(3, 5, columns, seed=3)
    used = x if layer.in_scale is None else quantize_int8(x, layer.in_scale).dequantize()
    expected = torch.einsum("blk,nk->bln", used.double(), values(layer.quantized_weight()))
    if layer.bias is not None:
        expected += layer.bias
    assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scheme", INTEGER, ids=name_of)
@pytest.mark.parametrize("columns", WIDTHS)
def test_integer_sums_are_exact(scheme: WeightScheme, columns: int) -> None:
    """y = acc s_x s_w to the bit, with acc the 64-bit sum of integer products; codes out are its rounding."""
    layer = layer_of(scheme, columns, bias=False)
    weight = layer.quantized_weight()
    whole = weight.codes.long() if weight.group_scale is None else integers(weight).long()
    x = quantize_int8(randn(7, columns, seed=4), torch.tensor(0.02))
    accumulated = (x.codes.long()[:, None] * whole).sum(2).to(torch.int32)
    assert layer.weight_scale is not None
    assert torch.equal(layer(x), accumulated * (x.scale * layer.weight_scale))
    coded = layer_of(scheme, columns, coded=True, bias=False)
    assert coded.out_scale is not None
    expected = (accumulated * (x.scale * layer.weight_scale / coded.out_scale)).round().clamp(-128, 127)
    assert torch.equal(coded(x).codes.float(), expected)


@pytest.mark.parametrize("scheme", INTEGER, ids=name_of)
@pytest.mark.parametrize("coded", [True, False])
def test_a_row_alone_equals_the_row_in_a_batch(scheme: WeightScheme, coded: bool) -> None:
    """Decoding and prefill are one arithmetic: a single row gives the bits that it gives among others."""
    layer = layer_of(scheme, coded=coded)
    x = randn(20, 301, seed=5)
    for row in (0, 13):
        one, many = layer(x[row : row + 1]), layer(x)
        if isinstance(one, QTensor):
            one, many = one.codes, many.codes
        assert torch.equal(one[0], many[row])


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
@pytest.mark.parametrize("columns", WIDTHS)
def test_a_layer_is_its_scheme_and_tensors(scheme: WeightScheme, columns: int) -> None:
    """Built again from its named tensors it holds the same bits and gives the same bits."""
    layer = layer_of(scheme, columns, coded=True)
    again = QLinear(scheme, layer.shape, layer.state_dict())
    assert again.state_dict().keys() == layer.state_dict().keys()
    for name, tensor in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    x = randn(4, columns, seed=6)
    y, same = layer(x), again(x)
    if isinstance(y, QTensor):
        y, same = y.dequantize(), same.dequantize()
    assert torch.equal(y, same)


def test_tensors_that_are_not_the_layers_are_refused() -> None:
    """Missing, unexpected, of another type or shape: one line says which, and what is kept."""
    scheme = SCHEMES["W4A8"]
    state = layer_of(scheme).state_dict()
    wrong: list[tuple[dict[str, torch.Tensor], str]] = [
        ({name: t for name, t in state.items() if name != "group_scale"}, "lacks the tensor 'group_scale'"),
        ({**state, "zero_point": torch.zeros(1)}, "has no tensor 'zero_point'"),
        ({**state, "codes": state["codes"].to(torch.int8)}, "is torch.int8"),
        ({**state, "codes": state["codes"][:, :-1]}, r"\[24, 150\], not torch.uint8 \[24, 151\]"),
        ({**state, "group_scale": state["group_scale"].float()}, "is torch.float32"),
    ]
    for tensors, says in wrong:
        with pytest.raises(ModelError, match=says):
            QLinear(scheme, (24, 301), tensors)
    with pytest.raises(ModelError, match=r"W4A16 layer .* has no tensor 'in_scale'"):
        QLinear.quantize(Linear(randn(4, 8)), torch.tensor(1.0), scheme=SCHEMES["W4A16"])
    with pytest.raises(ModelError, match=r"W8A8 layer .* lacks the tensor 'in_scale'"):
        QLinear.quantize(Linear(randn(4, 8)), None)


def test_an_input_has_one_scale() -> None:
    """The sum runs over input channels: codes with a scale each are refused, not multiplied by the wrong ones."""
    layer = layer_of(SCHEMES["W8A8"], 24)
    with pytest.raises(ValueError, match="one scale, not 24"):
        layer(QTensor(torch.ones(2, 24, dtype=torch.int8), torch.ones(24)))


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
def test_what_is_kept_is_the_packed_form(scheme: WeightScheme) -> None:
    """Using a layer adds nothing to its buffers; 4-bit codes take half a byte."""
    layer = layer_of(scheme, 256, bias=False)
    before = set(layer.state_dict())
    layer(randn(2, 256))
    assert set(layer.state_dict()) == before
    assert layer.codes.nbytes == 24 * 256 * scheme.num_bits // 8


@pytest.mark.parametrize("scheme", ALL, ids=name_of)
def test_the_operand_follows_the_buffers(scheme: WeightScheme) -> None:
    """Made once; made anew when other tensors are loaded into the layer or it moves to another device."""
    layer, x = layer_of(scheme), randn(3, 301, seed=7)
    first = layer.operand()
    assert layer.operand() is first
    other = QLinear.quantize(Linear(randn(24, 301, seed=8), randn(24, seed=9)), layer.in_scale, scheme=scheme)
    layer(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    # What moves the buffers is also what changes their type.
    second = layer.operand()
    assert (layer.double().operand() is second) == (scheme.num_bits == 8)


@pytest.mark.gpu
@pytest.mark.parametrize("scheme", ALL, ids=name_of)
def test_a_device_agrees_with_the_processor(scheme: WeightScheme) -> None:
    """Quantizing and moving give the same codes on a CUDA device, and integer layers the same bits."""
    layer, x = layer_of(scheme), randn(3, 301, seed=10)
    expected = layer(x)
    on_device = quantize_weight(randn(24, 301, seed=1).cuda(), scheme)
    assert torch.equal(on_device.codes.cpu(), layer.quantized_weight().codes)
    y = layer.cuda()(x.cuda()).cpu()
    if scheme.activation_bits == 8:
        assert torch.equal(y, expected)
    else:
        assert torch.allclose(y, expected, rtol=1e-3, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    num_bits=st.sampled_from([8, 4]), rows=st.integers(1, 9), columns=st.integers(1, 40), seed=st.integers(0, 1 << 30)
)
def test_embeddings_are_within_half_a_step(num_bits: int, rows: int, columns: int, seed: int) -> None:
    """Each row has the scale of its |max|, and every value is within half a step of what it was."""
    table = away_from_zero(rows, columns, seed) * torch.logspace(-2, 2, rows)[:, None]
    embedding = QEmbedding.quantize(Embedding(table), num_bits)
    ids = torch.arange(rows).repeat(2, 1)
    got = embedding(ids)
    assert got.shape == (2, rows, columns)
    assert got.dtype == torch.float32
    step = table.abs().amax(dim=1, keepdim=True) / (127 if num_bits == 8 else 7)
    # The 4-bit scale is rounded to float16: the largest code is off by 7 units in its last place.
    slack = 1e-4 if num_bits == 8 else 7 * 2**-11 + 1e-4
    assert bool(((got - table).abs() <= step * (0.5 + slack)).all())


@pytest.mark.parametrize("num_bits", [8, 4])
def test_rows_of_one_sign_and_of_zeros(num_bits: int) -> None:
    """Negative rows are as good as their mirror images; rows of zeros come back as zeros."""
    row = torch.linspace(0.1, 1.0, 9)
    embedding = QEmbedding.quantize(Embedding(torch.stack([row, -row, row * 0])), num_bits)
    got = embedding(torch.tensor([0, 1, 2]))
    assert torch.equal(got[1], -got[0])
    assert bool((got[0] > 0).all())
    assert not got[2].any()
    assert bool((embedding.scale > 0).all())


@pytest.mark.parametrize("num_bits", [8, 4])
@pytest.mark.parametrize("columns", [10, 11])
def test_an_embedding_is_its_bits_and_tensors(num_bits: int, columns: int) -> None:
    """Built again from its named tensors it gives the same bits, from as many bytes as its bits need."""
    embedding = QEmbedding.quantize(Embedding(randn(6, columns)), num_bits)
    again = QEmbedding(num_bits, (6, columns), embedding.state_dict())
    ids = torch.tensor([[5, 0, 5]])
    assert torch.equal(again(ids), embedding(ids))
    assert embedding.codes.nbytes == 6 * (columns if num_bits == 8 else (columns + 1) // 2)
    with pytest.raises(ModelError, match="lacks the tensor 'scale'"):
        QEmbedding(num_bits, (6, columns), {"codes": embedding.codes})


def test_embeddings_of_other_bits_are_refused() -> None:
    """The message says which there are."""
    with pytest.raises(RecipeError, match="use 8 or 4"):
        QEmbedding.quantize(Embedding(randn(2, 3)), 2)


def test_a_float_embedding_gives_its_rows() -> None:
    """Rows as they are, and a new tensor: what is added to them does not change the table."""
    embedding = Embedding(randn(4, 3))
    got = embedding(torch.tensor([[2, 2], [0, 3]]))
    assert torch.equal(got, embedding.weight[torch.tensor([[2, 2], [0, 3]])])
    got.add_(1)
    assert torch.equal(embedding.weight, randn(4, 3))


@pytest.mark.parametrize("num_bits", [8, 4])
def test_a_token_outside_the_table_is_an_error(num_bits: int) -> None:
    """Neither wraps around to the last rows nor reads beyond them."""
    embedding = QEmbedding.quantize(Embedding(randn(4, 3)), num_bits)
    for token in (-1, 4):
        with pytest.raises(IndexError):
            embedding(torch.tensor([token]))
