"""Laws of the model as lm-eval drives it."""

import pytest

lm_eval_adapter = pytest.importorskip("quamba.evals.lm_eval_adapter")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.metrics import bootstrap_stderr, mean, perplexity  # noqa: E402
from lm_eval.api.model import TemplateLM  # noqa: E402
from lm_eval.utils import get_rolling_token_windows  # noqa: E402

from quamba.errors import TaskError  # noqa: E402
from tests.quamba.evals_fakes import Fake, log_probs_of, score_of  # noqa: E402

LOADED = Fake()
EOS = LOADED.tokenizer.eos_token_id
PAIRS = [
    ("The cat sat on the", " mat"),
    ("The cat sat on the ", "mat"),
    ("The cat sat on the", " dog and ran away"),
    ("Q: two and two?\nA:  ", " four"),
    ("naïve 世界", "🦀 ok"),
    ("uni", "versity"),
]


def model(batch_size: int = 3, max_length: int = 2048) -> lm_eval_adapter.EvaluatedLM:
    return lm_eval_adapter.EvaluatedLM(
        LOADED, batch_size=batch_size, max_length=max_length, on_progress=lambda done, total: None
    )


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


def test_pairs_are_split_as_lm_eval_splits_them() -> None:
    """Encoding all texts at once gives what TemplateLM's pair by pair gives."""
    adapter = model()
    assert adapter._encode_pairs(PAIRS) == [TemplateLM._encode_pair(adapter, *pair) for pair in PAIRS]


def test_loglikelihood_is_the_naive_score_in_request_order() -> None:
    """Each request's own score, at any batch size."""
    expected = [score_of(LOADED, *TemplateLM._encode_pair(model(), *pair)) for pair in PAIRS]
    for batch_size in (1, 4):
        scored = model(batch_size).loglikelihood(instances("loglikelihood", PAIRS))
        assert [greedy for _, greedy in scored] == [greedy for _, greedy in expected]
        assert [total for total, _ in scored] == pytest.approx([total for total, _ in expected], abs=1e-4)


def test_without_a_context_the_end_of_text_is_it() -> None:
    """An empty or blank context is the end-of-text token; a continuation that begins with it keeps it as context."""
    encode = LOADED.tokenizer.encode
    assert model()._encode_pairs([("", "word"), (" ", "word"), ("", "<|endoftext|>word"), ("", "")]) == [
        ([EOS], encode("word")),
        ([EOS], encode(" word")),
        ([EOS], encode("word")),
        ([EOS], []),
    ]
    [(total, greedy), nothing] = model().loglikelihood(instances("loglikelihood", [("", "word"), ("", "")]))
    assert (total, greedy) == pytest.approx(score_of(LOADED, [EOS], encode("word")), abs=1e-4)
    assert nothing == (0.0, True)


def test_a_long_context_loses_its_beginning() -> None:
    """The model reads the last max_length tokens before the last one."""
    context, continuation = list(range(20, 60)), [3, 4, 5]
    [(total, _)] = model(max_length=10)._loglikelihood_tokens([(None, context, continuation)])
    assert total == pytest.approx(score_of(LOADED, context[-8:], continuation)[0], abs=1e-4)


def test_a_continuation_beyond_the_length_is_refused() -> None:
    """What the model cannot read at once is an error, not a part of a score."""
    with pytest.raises(TaskError, match="12 tokens is longer than the 10"):
        model(max_length=10)._loglikelihood_tokens([(None, [1], [2] * 12)])


@pytest.mark.parametrize("max_length", [7, 2048])
def test_rolling_is_the_naive_sum_over_its_windows(max_length: int) -> None:
    """Each token of a text is scored once, with as much context as its window has; an empty text is certain."""
    texts = ["It was the best of times, it was the worst of times.", "", "Short."]
    scored = model(max_length=max_length).loglikelihood_rolling(
        instances("loglikelihood_rolling", [(t,) for t in texts])
    )
    for text, total in zip(texts, scored, strict=True):
        expected = 0.0
        for inputs, targets in get_rolling_token_windows(LOADED.tokenizer.encode(text), EOS, max_length, 1):
            table = log_probs_of(LOADED, inputs)[-len(targets) :]
            expected += sum(float(row[token]) for row, token in zip(table, targets, strict=True))
        assert total == pytest.approx(expected, abs=1e-3)


def test_generation_obeys_each_requests_options() -> None:
    """Requests with different options share a call and get what each would get alone; contexts are cut on the left."""
    arguments = [
        ("The cat sat", {"until": ["\n"], "max_gen_toks": 5}),
        ("", {"until": [], "max_gen_toks": 3, "do_sample": False}),
        ("It was the best of times " * 5, {"until": ["\n"], "max_gen_toks": 5}),
        ("The cat sat", {"until": [], "max_gen_toks": 6, "temperature": 1.0}),
    ]
    together = model(max_length=16).generate_until(instances("generate_until", arguments))
    alone = [model(max_length=16).generate_until(instances("generate_until", [args]))[0] for args in arguments[:3]]
    assert together[:3] == alone
    assert all(together)


def test_no_room_to_generate_is_refused() -> None:
    """The model's length has to hold more than what is to be written."""
    with pytest.raises(TaskError, match="leave no room"):
        model(max_length=16).generate_until(instances("generate_until", [("a", {"max_gen_toks": 16})]))


def test_the_standard_error_is_lm_evals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Resampling gives the very number of lm-eval's own function, without its output."""
    values = [-0.5 * number for number in range(30)]
    quiet = lm_eval_adapter.bootstrap_stderr(perplexity, values, iters=200)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    assert quiet == bootstrap_stderr(perplexity, values, iters=200)
    assert lm_eval_adapter.bootstrap_stderr(mean, [2.0] * 5, iters=10) == 0.0
    # Metrics of a whole corpus are taken over tuples.
    pairs = [(number % 3, number % 2) for number in range(30)]
    agreeing = lambda drawn: mean([float(left == right) for left, right in drawn])  # noqa: E731
    assert lm_eval_adapter.bootstrap_stderr(agreeing, pairs, iters=200) == bootstrap_stderr(agreeing, pairs, iters=200)


def test_the_tokenizer_is_identified() -> None:
    """Its name for caches holds the digest and no character that a file name cannot have."""
    name = model().tokenizer_name
    assert LOADED.tokenizer.digest.removeprefix("sha256:") in name
    assert not set(name) & set("/:\\")
