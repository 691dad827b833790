"""The headline figures, and the text that ends a run."""

from dataclasses import replace
from string import Formatter

from qlog.v1.language import width
from qlog.v1.spec_pb2 import ExperimentSpec

from quamba.reports import MetricReport, PerplexityReport, TaskReport
from quantizer.events import ExperimentResults
from quantizer.outcome import Outcome
from quantizer.recorder import Delivery
from quantizer.results import results_of
from quantizer.summary import summary
from quantizer.summary_words import WORDS
from quantizer.wire_spec import config_of
from tests.quantizer.builders import layer_report

DELIVERED = Delivery("0199-some-id", True, 7, False, "127.0.0.1:50551", "logs/spool")


def task(name: str, **metrics: float) -> TaskReport:
    return TaskReport(
        name, tuple(MetricReport(metric, value, 0.01) for metric, value in metrics.items()), 10, 0, None, "1"
    )


def text(name: str, perplexity: float) -> PerplexityReport:
    return PerplexityReport(name, perplexity, 5, 2048)


def test_accuracy_and_perplexity_are_found_independently() -> None:
    """Each is the first task's that has it; they need not be of one task."""
    results = results_of([task("a", perplexity=9.0), task("b", acc=0.5), task("c", acc=0.9, perplexity=1.0)], [])
    assert (results.accuracy, results.perplexity) == (0.5, 9.0)


def test_a_tasks_accuracy_is_acc_before_others() -> None:
    """acc, else acc_norm, else an exact match; lm-eval's filters are no part of the name."""
    assert results_of([task("a", acc_norm=0.7, acc=0.5)], []).accuracy == 0.5
    assert results_of([task("a", acc_norm=0.7)], []).accuracy == 0.7
    assert results_of([task("a", **{"exact_match,strict-match": 0.3})], []).accuracy == 0.3


def test_a_data_sets_perplexity_stands_in_where_no_task_has_one() -> None:
    """The first data set's."""
    assert results_of([task("a", acc=0.5)], [text("x", 3.0), text("y", 4.0)]).perplexity == 3.0
    assert results_of([task("a", perplexity=9.0)], [text("x", 3.0)]).perplexity == 9.0


def test_nothing_measured_is_nothing_said() -> None:
    """No figure is made up."""
    assert results_of([], []) == ExperimentResults()


def outcome() -> Outcome:
    spec = ExperimentSpec(model="some-model", quantize=True, percentile_alpha="0.99", eval_zero_shot=True)
    results = results_of([task("cloze", acc=0.25)], [text("gutenberg", 31.5)], ExperimentResults(accuracy=0.3))
    layers = tuple(layer_report(index) for index in range(3))
    return Outcome(config_of(spec), layers, 8, results, {"before": 8_000_000, "after": 2_000_000}, 3725.0)


def test_the_summary_has_what_a_user_looks_for() -> None:
    """Configuration, the first tensors' ranges with their average, reordering, results, where it is recorded."""
    shown = summary(outcome(), DELIVERED)
    for wanted in (
        "some-model",
        "W8A8",
        "0.99",
        "layer_0.x_proj:input",
        "layer_2.x_proj:input",
        "average",
        "3 of 8",
        "Reordering",
        "0.2500",
        "31.5000",
        "4.00 times smaller",
        "1 h 2 min 5 s",
        "number 7",
        "0199-some-id",
        "127.0.0.1:50551",
    ):
        assert wanted in shown, wanted
    assert "6.0000" in shown  # The mean of the ranges 5, 6 and 7.


def test_the_summary_in_chinese() -> None:
    """The same in Chinese: the labels that the lab uses, each table's columns aligned as a terminal shows them."""
    shown = summary(outcome(), DELIVERED, "zh")
    for wanted in (
        "配置",
        "最终结果",
        "模型",
        "量化",
        "激活统计",
        "裁剪前范围",
        "裁剪后范围",
        "范围缩小",
        "裁剪比例",
        "Reorder效果",
        "影响层数",
    ):
        assert wanted in shown, wanted
    for wanted in ("some-model", "W8A8", "0.2500", "4.00", "1 小时 2 分 5 秒", "编号 7", "0199-some-id"):
        assert wanted in shown, wanted
    lines = shown.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("激活统计"))
    assert len({width(line) for line in lines[head : head + 5]}) == 1
    model, bits = (next(line for line in lines if value in line) for value in ("some-model", "W8A8"))
    assert width(model.partition("some-model")[0]) == width(bits.partition("W8A8")[0]) == 17


def test_every_word_of_the_summary_is_there_in_both_languages() -> None:
    """The same keys, with the same places to fill in."""
    places = [
        {key: {name for _, name, _, _ in Formatter().parse(text) if name} for key, text in words.items()}
        for words in WORDS.values()
    ]
    assert places[0] == places[1]


def test_the_summary_says_where_a_record_is_that_did_not_arrive() -> None:
    """Kept for later, or not kept at all: the user is not told that all is well."""
    kept = summary(outcome(), replace(DELIVERED, delivered=False, number=None))
    assert "not yet" in kept
    assert "quantizer spool flush" in kept
    lost = summary(outcome(), replace(DELIVERED, delivered=False, number=None, lost=True))
    assert "Recorded         NO" in lost


def test_an_evaluation_of_the_model_as_it_is_shows_no_quantization() -> None:
    """No bits, no alpha, no tensors."""
    config = config_of(ExperimentSpec(model="some-model", eval_ppl=True))
    shown = summary(Outcome(config, (), 0, results_of([], [text("x", 3.0)]), {}, 1.0), DELIVERED)
    assert "Quantization     none" in shown
    assert "alpha" not in shown
