"""Laws of the lm-eval side: its requests get naive scores, its tasks run quietly, offline and one at a time."""

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from quamba.errors import TaskError
from quamba.evals import check_tasks, evaluate_tasks
from quamba.evals.local_tasks import gutenberg_cloze, last_word, passage
from quamba.evals.task_files import find_task
from quamba.reports import ProgressReport, TaskReport
from tests.quamba.evals_fakes import Fake, score_of

LOADED = Fake()


def reports(tasks: list[str], **options: int) -> list[TaskReport]:
    return [r for r in evaluate_tasks(LOADED, tasks, **options) if isinstance(r, TaskReport)]


def test_cloze_is_the_naive_score_of_the_last_word() -> None:
    """Accuracy is the share of greedy last words, perplexity exp of minus their mean log probability."""
    [report] = reports(["gutenberg_cloze"], limit=6, batch_size=4)
    documents = [gutenberg_cloze()["test"][i] for i in range(6)]
    encode = LOADED.tokenizer.encode
    scores = []
    for document in documents:
        context = encode(passage(document))
        scores.append(score_of(LOADED, context, encode(document["text"])[len(context) :]))
    metrics = {metric.name: metric for metric in report.metrics}
    assert metrics["acc"].value == sum(greedy for _, greedy in scores) / 6
    assert metrics["perplexity"].value == pytest.approx(math.exp(-sum(total for total, _ in scores) / 6), rel=1e-4)
    assert metrics["acc"].stderr >= 0.0
    assert metrics["perplexity"].stderr > 0.0
    assert (report.task, report.n, report.num_fewshot, report.limit) == ("gutenberg_cloze", 6, 0, 6)
    assert report.version == "1.0"


def test_the_shipped_task_has_a_thousand_passages() -> None:
    """1000 passages, each with a last word that occurs earlier in it."""
    documents = gutenberg_cloze()["test"]
    assert len(documents) == 1000
    for document in documents:
        assert passage(document) + last_word(document) == document["text"]
        assert last_word(document).strip().lower() in passage(document).lower()


def test_examples_come_before_the_question_and_are_never_it() -> None:
    """Two-shot contexts hold two other passages with their last words, joined by blank lines."""
    from quamba.evals import lm_eval_adapter

    seen: list[str] = []
    encode_pairs = lm_eval_adapter.EvaluatedLM._encode_pairs

    class Listening(lm_eval_adapter.EvaluatedLM):
        def _encode_pairs(self, pairs):
            seen.extend(context for context, _ in pairs)
            return encode_pairs(self, pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_eval_adapter, "EvaluatedLM", Listening)
        [report] = reports(["gutenberg_cloze"], limit=3, num_fewshot=2, batch_size=3)
    texts = [document["text"] for document in gutenberg_cloze()["test"]]
    assert report.num_fewshot == 2
    for number, context in enumerate(seen):
        question = passage({"text": texts[number]})
        assert context.endswith("\n\n" + question)
        examples = context.removesuffix(question)
        assert sum(text + "\n\n" in examples for text in texts) == 2
        assert texts[number] not in examples


def test_progress_is_told_and_ends_at_the_total() -> None:
    """The phase names the task; the last progress has all requests done."""
    progress = [r for r in evaluate_tasks(LOADED, ["gutenberg_cloze"], limit=4) if isinstance(r, ProgressReport)]
    assert {report.phase for report in progress} == {"evaluate:gutenberg_cloze"}
    assert (progress[0].done, progress[-1].done, progress[-1].total) == (0, 4, 4)
    assert [report.done for report in progress] == sorted(report.done for report in progress)


def test_abandoning_the_iterator_stops_the_work() -> None:
    """After close() no thread goes on evaluating."""
    running = evaluate_tasks(LOADED, ["gutenberg_cloze"], limit=300)
    assert isinstance(next(running), ProgressReport)
    assert isinstance(next(running), ProgressReport)
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluate:")]


def test_a_failure_of_the_model_reaches_the_caller() -> None:
    """What the model raises in the worker is raised where the iterator is read."""
    loaded = Fake()

    def fail(input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    loaded.model.hidden_states = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        list(evaluate_tasks(loaded, ["gutenberg_cloze"], limit=2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gutenberg_close", "did you mean gutenberg_cloze"),
        ("lambada_opnai", "lambada_openai"),
        ("no such thing at all", "unknown task 'no such thing at all'"),
        ("", "unknown task ''"),
        ("../../secrets", "unknown task"),
    ],
)
def test_an_unknown_task_is_named_with_close_ones(name: str, message: str) -> None:
    """The error has the name and what one may have meant."""
    with pytest.raises(TaskError, match=message):
        check_tasks(["gutenberg_cloze", name])


def test_tasks_groups_and_tags_are_known() -> None:
    """Plain tasks are told from what needs lm-eval's index, without building it."""
    check_tasks(["gutenberg_cloze", "lambada_openai", "piqa", "mmlu", "ai2_arc"])
    assert [find_task(name).kind for name in ("lambada_openai", "mmlu", "ai2_arc")] == [
        "task",
        "collection",
        "collection",
    ]


def test_no_task_is_an_error() -> None:
    """An empty list cannot be evaluated."""
    with pytest.raises(TaskError, match="at least one"):
        check_tasks([])


def test_lambada_without_its_file_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the missing file and the variable to set."""
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path))
    with pytest.raises(TaskError, match=r"lambada_test\.jsonl.*QLOG_ASSETS"):
        check_tasks(["lambada_local"])


def test_lambada_is_read_from_the_assets_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any folder that QLOG_ASSETS names will do."""
    folder = tmp_path / "data" / "lambada"
    folder.mkdir(parents=True)
    (folder / "lambada_test.jsonl").write_text(
        '{"text": "one two three"}\n{"text": "four five six"}\n', encoding="utf-8"
    )
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path))
    [report] = reports(["lambada_local"])
    assert (report.task, report.n) == ("lambada_local", 2)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"limit": 0}, {"num_fewshot": -1}, {"max_length": 1}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    """Numbers below the smallest ones that make sense."""
    with pytest.raises(TaskError, match="must be at least"):
        list(evaluate_tasks(LOADED, ["gutenberg_cloze"], **options))


QUIET_OFFLINE = """
import sys
calls = []
network = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: calls.append(args[1:]) if event in network else None)
from quamba.evals import check_tasks, evaluate_tasks
check_tasks(["gutenberg_cloze", "lambada_openai"])
heavy = {"lm_eval", "datasets", "transformers"} & set(sys.modules)
assert not heavy, heavy
from tests.quamba.evals_fakes import Fake
[report] = [r for r in evaluate_tasks(Fake(), ["gutenberg_cloze"], limit=20, batch_size=20) if hasattr(r, "metrics")]
assert report.n == 20, report
assert not calls, calls
"""


def test_a_local_task_is_quiet_offline_and_writes_nothing(tmp_path: Path) -> None:
    """No line on stdout or stderr, no attempt at the network, no cache; checking names loads nothing of lm-eval."""
    import os

    done = subprocess.run(
        [sys.executable, "-c", QUIET_OFFLINE],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "xdg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
