"""Hadamard matrices and the transforms made of them."""

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.transforms.hadamard import (
    BASE_SIZES,
    Hadamard,
    HadamardFactors,
    decompose,
    hadamard_matrix,
    kronecker_product,
)

D_MODEL = (768, 1024, 1536, 2048, 2560, 4096)
D_INNER = (1536, 2048, 3072, 4096, 5120, 8192)
RELEASED = sorted({*D_MODEL, *D_INNER})
sizes = st.integers(1, 700)


def rows_of(factors: HadamardFactors, rows: torch.Tensor) -> torch.Tensor:
    """Rows of the orthonormal matrix, entry by entry: H_base[a, b] (-1)^(number of common bits of i and j)."""
    base, length = hadamard_matrix(factors.base), 1 << factors.doublings
    columns = torch.arange(factors.size)
    common = (rows % length)[:, None] & (columns % length)
    parity = sum((common >> bit) & 1 for bit in range(factors.doublings)) if factors.doublings else common
    same_block = (rows // factors.order)[:, None] == columns // factors.order
    in_base = base[(rows // length % factors.base)[:, None], columns // length % factors.base]
    return in_base * (1 - 2 * (parity % 2)) * same_block / math.sqrt(factors.order)


def explicit(size: int) -> torch.Tensor:
    return rows_of(decompose(size), torch.arange(size))


def spread(size: int, count: int = 96) -> torch.Tensor:
    """Indices of rows over the whole matrix, first and last among them."""
    return torch.linspace(0, size - 1, min(size, count)).round().long()


def unit_vectors(size: int) -> torch.Tensor:
    rows = spread(size)
    return torch.zeros(len(rows), size, dtype=torch.float64).scatter_(1, rows[:, None], 1.0)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("base", BASE_SIZES)
def test_base_matrices_are_hadamard(base: int) -> None:
    """Entries are 1 and -1, and H H^T = H^T H = n I, exactly."""
    H = hadamard_matrix(base)
    assert H.shape == (base, base)
    assert bool((H.abs() == 1).all())
    assert torch.equal(H @ H.T, base * torch.eye(base, dtype=torch.float64))
    assert torch.equal(H.T @ H, base * torch.eye(base, dtype=torch.float64))


def test_some_base_is_not_symmetric() -> None:
    """The sides of a product can be confused without notice only where H = H^T: the tests below use others too."""
    symmetric = {base: torch.equal(hadamard_matrix(base), hadamard_matrix(base).T) for base in BASE_SIZES}
    assert [base for base in BASE_SIZES if not symmetric[base]] == [12, 20, 44, 60]


@given(size=st.integers(1, 1 << 20))
def test_every_size_is_decomposed(size: int) -> None:
    """n = blocks m 2^k; one block with the smallest m there is, or else blocks as large a power of two as n has."""
    factors = decompose(size)
    assert factors.size == size
    fitting = [m for m in BASE_SIZES if size % m == 0 and math.log2(size // m).is_integer()]
    if fitting:
        assert (factors.blocks, factors.base) == (1, fitting[0])
    else:
        assert factors.base == 1
        assert factors.blocks % 2 == 1
        assert factors.blocks > 1
    assert HadamardFactors(**asdict(factors)) == factors


@pytest.mark.parametrize(
    ("size", "factors"),
    [
        (1, HadamardFactors(1, 0)),
        (7, HadamardFactors(1, 0, blocks=7)),
        (6, HadamardFactors(1, 1, blocks=3)),
        (12, HadamardFactors(12, 0)),
        (40, HadamardFactors(20, 1)),
        (768, HadamardFactors(12, 6)),
        (4096, HadamardFactors(1, 12)),
        (5120, HadamardFactors(20, 8)),
        (17 * 64, HadamardFactors(1, 6, blocks=17)),
    ],
)
def test_sizes_that_are_known(size: int, factors: HadamardFactors) -> None:
    """The released sizes as the papers' tables have them, and the fallback where there is no matrix."""
    assert decompose(size) == factors


def test_what_is_no_transform_is_refused() -> None:
    """Sizes below 1, unknown bases and orders without a matrix are errors that name them."""
    for size in (0, -4):
        with pytest.raises(ValueError, match=f"not {size}"):
            decompose(size)
    with pytest.raises(ValueError, match="order 24"):
        HadamardFactors(24, 0)
    for doublings, blocks in ((-1, 1), (2, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            HadamardFactors(1, doublings, blocks)
    with pytest.raises(ValueError, match="order 6"):
        hadamard_matrix(6)


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes_are_orthonormal(size: int) -> None:
    """H H^T = I and H^T H = I to 1e-12 in float64: both Kronecker factors wholly, and rows spread over the product.

    The two factors are near sqrt(n), as speed wants it.
    """
    H = Hadamard(size, torch.float64)
    assert len(H.left) * len(H.right) == size
    assert max(len(H.left), len(H.right)) <= 2 * min(len(H.left), len(H.right))
    p, q = (torch.eye(len(factor), dtype=torch.float64) for factor in (H.left, H.right))
    assert torch.equal(H.left @ H.left.T, len(p) * p)
    assert (len(p) * H.right @ H.right.T - q).abs().max() < 1e-12
    units = unit_vectors(size)
    for there, back in ((H, H.inverse), (H.inverse, H)):
        rotated = there(units)
        assert (rotated @ rotated.T - torch.eye(len(units))).abs().max() < 1e-12
        assert (back(rotated) - units).abs().max() < 1e-12


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes_equal_the_explicit_matrix(size: int) -> None:
    """Rows of H, and rows of H^T through them, are those of the matrix written entry by entry."""
    H = Hadamard(size, torch.float64)
    expected = rows_of(decompose(size), spread(size))
    assert (H(unit_vectors(size)) - expected).abs().max() < 1e-12
    assert (H.inverse(expected) - unit_vectors(size)).abs().max() < 1e-12
    x = random(2, size)
    assert (H.inverse(x)[:, spread(size)] - x @ expected.T).abs().max() < 1e-11


@settings(max_examples=60, deadline=None)
@given(size=st.one_of(sizes, st.sampled_from([m << k for m in BASE_SIZES for k in range(4)])), seed=st.integers(0, 99))
def test_the_module_is_its_matrix(size: int, seed: int) -> None:
    """x H and x H^T for any n, fallback included, for inputs of any shape; H is orthonormal."""
    M, H = explicit(size), Hadamard(size, torch.float64)
    assert (M @ M.T - torch.eye(size)).abs().max() < 1e-12
    x = random(2, 3, size, seed=seed)
    assert (H(x) - x @ M).abs().max() < 1e-12
    assert (H.inverse(x) - x @ M.T).abs().max() < 1e-12
    assert (Hadamard(size)(x.float()) - x @ M).abs().max() < 1e-5
    assert H(x[0, 0]).shape == (size,)
    assert H(x[:0]).shape == (0, 3, size)
    assert torch.equal(H(x.transpose(0, 1)), H(x.transpose(0, 1).contiguous()))


@settings(max_examples=30, deadline=None)
@given(size=st.one_of(sizes, st.sampled_from(RELEASED)), seed=st.integers(0, 99))
def test_rotated_input_and_rotated_weight_give_the_same_product(size: int, seed: int) -> None:
    """(x M)(W M)^T = x W^T."""
    M = Hadamard(size, torch.float64)
    x, W = random(4, size, seed=seed), random(5, size, seed=seed + 1)
    assert (M(x) @ M(W).T - x @ W.T).abs().max() < 1e-12 * size
    narrow = Hadamard(size)
    error = (narrow(x.float()) @ narrow(W.float()).T).double() - x @ W.T
    assert error.abs().max() < 1e-5 * math.sqrt(size)


@settings(max_examples=30, deadline=None)
@given(p=st.integers(1, 9), q=st.integers(1, 9), blocks=st.integers(1, 4), seed=st.integers(0, 99))
def test_kronecker_products_of_any_matrices(p: int, q: int, blocks: int, seed: int) -> None:
    """x (I ⊗ A ⊗ B), where neither matrix is symmetric."""
    A, B, x = random(p, p, seed=seed), random(q, q, seed=seed + 1), random(3, blocks * p * q, seed=seed + 2)
    whole = torch.kron(torch.eye(blocks, dtype=torch.float64), torch.kron(A, B))
    assert (kronecker_product(x, A, B) - x @ whole).abs().max() < 1e-10


def test_a_rotation_takes_only_its_size() -> None:
    """Rows of another size are refused, also such as could be cut or joined to fit."""
    H = Hadamard(64)
    for shape in ((128,), (2, 32), (64, 2), (3, 63)):
        for rotate in (H, H.inverse):
            with pytest.raises(ValueError, match="size 64"):
                rotate(torch.zeros(shape))


def test_recorded_factors_rebuild_the_same_transform() -> None:
    """A transform is made from its factors alone, other ones than today's choice too; nothing of it is saved."""
    factors = HadamardFactors(base=1, doublings=2, blocks=3)
    H = Hadamard(factors, torch.float64)
    x = random(2, 12)
    assert (H(x) - x @ rows_of(factors, torch.arange(12))).abs().max() < 1e-12
    assert not torch.equal(H(x), Hadamard(12, torch.float64)(x))
    assert not H.state_dict()


def test_a_spike_is_spread() -> None:
    """What rotation is for: one outlier of size n becomes sqrt(n) in every channel."""
    spike = torch.zeros(1536)
    spike[700] = 1536.0
    assert torch.allclose(Hadamard(1536)(spike).abs(), torch.full((1536,), math.sqrt(1536)))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [768, 5120, 8192, 17 * 64])
def test_the_same_on_cuda(size: int) -> None:
    """The buffers move with the module, and both directions agree with the CPU."""
    x = random(3, 5, size, dtype=torch.float32)
    here, there = Hadamard(size), Hadamard(size).to("cuda")
    assert (there(x.cuda()).cpu() - here(x)).abs().max() < 1e-5
    assert (there.inverse(there(x.cuda())).cpu() - x).abs().max() < 1e-5
