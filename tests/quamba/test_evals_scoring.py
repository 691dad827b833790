"""Laws of scoring: batching, sharing and blocks are invisible in the results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.evals import scoring
from quamba.evals.scoring import TokenRequest, score_requests
from tests.quamba.evals_fakes import Fake, log_probs_of, score_of

LOADED = Fake()


def request(context: list[int], continuation: list[int]) -> TokenRequest:
    return TokenRequest(tuple((context + continuation)[:-1]), tuple(continuation))


def random_pairs(count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    draw = np.random.default_rng(seed)
    return [
        (draw.integers(0, 50, draw.integers(1, 30)).tolist(), draw.integers(0, 50, draw.integers(1, 6)).tolist())
        for _ in range(count)
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_equal_one_request_at_a_time_with_the_whole_softmax(batch_size: int) -> None:
    """Whatever the batch size, each request gets the naive result, in the order of the requests."""
    pairs = random_pairs(25, seed=1)
    pairs += pairs[:3]  # repeated requests
    scored = score_requests(LOADED, [request(*pair) for pair in pairs], batch_size=batch_size)
    for pair, (log_prob, greedy) in zip(pairs, scored, strict=True):
        expected, expected_greedy = score_of(LOADED, *pair)
        assert log_prob == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


ids = st.integers(0, 3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.lists(ids, min_size=1, max_size=5), st.lists(ids, min_size=1, max_size=4)), max_size=12),
    st.integers(1, 4),
)
def test_shared_beginnings_change_nothing(pairs: list[tuple[list[int], list[int]]], batch_size: int) -> None:
    """Requests that begin one another, in any mixture, get the naive results."""
    scored = score_requests(LOADED, [request(*pair) for pair in pairs], batch_size=batch_size)
    expected = [score_of(LOADED, *pair) for pair in pairs]
    assert [greedy for _, greedy in scored] == [greedy for _, greedy in expected]
    assert [total for total, _ in scored] == pytest.approx([total for total, _ in expected], abs=1e-4)


def test_choices_of_one_question_cost_one_pass() -> None:
    """Continuations of one token after the same context are read once, and their place is projected once."""
    loaded = Fake()
    scored = score_requests(loaded, [request([5, 6, 7], [choice]) for choice in (1, 2, 3, 4)], batch_size=8)
    assert loaded.model.shapes_read == [(1, 3)]
    assert loaded.model.rows_projected == 1
    table = log_probs_of(loaded, [5, 6, 7])
    assert [total for total, _ in scored] == pytest.approx([float(table[-1, choice]) for choice in (1, 2, 3, 4)])


def test_only_scored_positions_reach_the_head() -> None:
    """The vocabulary projection is computed for the targets' places, not for their contexts."""
    loaded = Fake()
    score_requests(loaded, [request([1] * 40, [2, 3]), request([4] * 9, [5])], batch_size=2)
    assert loaded.model.rows_projected == 3


def test_batches_hold_requests_of_near_length() -> None:
    """Longest first, so that a batch carries little padding."""
    loaded = Fake()
    score_requests(loaded, [request([n] * n, [1]) for n in (2, 9, 3, 8, 1, 7)], batch_size=2)
    assert loaded.model.shapes_read == [(2, 9), (2, 7), (2, 2)]


def test_the_greedy_flag_is_exact() -> None:
    """The argmax continuation is greedy, any other token in it is not; an empty one is certain."""
    context, continuation = [3, 1], []
    for _ in range(4):
        continuation.append(int(log_probs_of(LOADED, context + continuation)[-1].argmax()))
    broken = [*continuation[:2], (continuation[2] + 1) % 50, continuation[3]]
    requests = [request(context, continuation), request(context, broken), TokenRequest((3, 1), ())]
    assert [greedy for _, greedy in score_requests(LOADED, requests, batch_size=2)] == [True, False, True]


def test_blocks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projecting a few positions at a time gives what projecting all of them gives."""
    requests = [request(*pair) for pair in random_pairs(10, seed=2)]
    whole = score_requests(LOADED, requests, batch_size=4)
    monkeypatch.setattr(scoring, "LOGIT_BLOCK_BYTES", 4 * 4096 * 3)
    for (total, greedy), (expected, expected_greedy) in zip(
        score_requests(LOADED, requests, batch_size=4), whole, strict=True
    ):
        assert total == pytest.approx(expected, abs=1e-5)
        assert greedy == expected_greedy


def test_every_request_is_counted_once() -> None:
    """What is told as done adds up to the requests, shared and empty ones too."""
    done: list[int] = []
    requests = [request([1, 2], [3]), request([1, 2], [4]), request([9], [9]), TokenRequest((1,), ())]
    score_requests(LOADED, requests, batch_size=1, on_scored=done.append)
    assert sum(done) == 4
