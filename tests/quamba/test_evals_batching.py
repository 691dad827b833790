"""How much goes through a model at a time is invisible in the results, and bounded by memory."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quamba.evals.batching import TOKENS_ON_CUDA, Batching, Fetched, to_device, tokens_that_fit
from quamba.evals.perplexity import perplexity
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.flow.batches import documents_at_once
from quamba.reports import PerplexityReport
from tests.quamba.evals_fakes import Fake

CPU = torch.device("cpu")
T = TypeVar("T")


@given(st.floats(1.0, 1e9), st.integers(0, 1 << 40))
def test_passes_take_half_of_the_free_memory_at_most(bytes_per_token: float, free: int) -> None:
    """However much a token takes; a single token goes through even where that is too much."""
    tokens = tokens_that_fit(bytes_per_token, free)
    assert 1 <= tokens <= TOKENS_ON_CUDA
    assert tokens == 1 or tokens * bytes_per_token <= free / 2
    assert tokens == TOKENS_ON_CUDA or 2 * tokens * bytes_per_token > free / 2


def test_the_users_number_holds_on_every_device() -> None:
    """Whatever the length of the rows; without one a CPU takes one row."""
    for device in (CPU, torch.device("cuda")):
        assert {Batching(device, 7).rows(length) for length in (1, 100, 100_000)} == {7}
        assert documents_at_once(device, 7) == 7
    assert Batching(CPU, None).rows(5) == documents_at_once(CPU, None) == 1


def test_rows_on_a_gpu_fill_a_number_of_tokens() -> None:
    """Short rows more of them, and never none."""
    rows = Batching(torch.device("cuda"), None).rows
    assert rows(1) == 2 * rows(2) == 64 * rows(64)
    assert rows(10**9) == 1
    assert documents_at_once(torch.device("cuda"), None) > 1


def test_no_number_changes_no_score() -> None:
    """The device's choice and the user's give the same scores and the same perplexity."""
    requests = [TokenRequest(tuple(range(n)), (n % 7, 3)) for n in range(2, 12)]
    scores = [score_requests(Fake(), requests, batch_size=size) for size in (None, 4)]
    assert [total for total, _ in scores[0]] == pytest.approx([total for total, _ in scores[1]], abs=1e-4)
    assert [greedy for _, greedy in scores[0]] == [greedy for _, greedy in scores[1]]
    measured = []
    for size in (None, 2):
        *_, report = perplexity(Fake(), "gutenberg", batch_size=size, max_windows=3, window_tokens=9)
        assert isinstance(report, PerplexityReport)
        measured.append(report.perplexity)
    assert measured[0] == pytest.approx(measured[1], rel=1e-6)


def test_results_are_taken_up_while_the_next_pass_runs() -> None:
    """A pass is started before the one before it is read, and each is read."""
    order: list[str] = []

    def compute(function: Callable[[], T]) -> T:
        order.append("start")
        return function()

    score_requests(
        Fake(),
        [TokenRequest((n, n + 1), (5,)) for n in range(3)],
        batch_size=1,
        on_scored=lambda count: order.append(f"read {count}"),
        compute=compute,
    )
    assert order == ["read 0", "start", "start", "read 1", "start", "read 1", "read 1"]


@pytest.mark.gpu
def test_values_survive_the_way_to_a_gpu_and_back() -> None:
    """Both ways are asynchronous; neither loses anything, whatever the device does meanwhile."""
    device = torch.device("cuda")
    values = torch.arange(1 << 20).numpy()
    there = to_device(values, device)
    back = Fetched(there.float())
    there.zero_()
    assert torch.equal(torch.from_numpy(back.numpy()).long(), torch.arange(1 << 20))
