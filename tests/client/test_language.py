"""The words of tables in two languages."""

from collections.abc import Callable

import pytest

from client.labels import LABELS, language_of
from client.labels_zh import LABELS_ZH
from client.text import width
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]


def test_every_word_is_translated() -> None:
    """Both tables have the same keys, and the fixed words are those that were agreed on."""
    assert set(LABELS_ZH) == set(LABELS)
    fixed = {
        "configuration": "配置", "model": "模型", "activation_statistics": "激活统计", "before_clipping": "裁剪前",
        "after_clipping": "裁剪后", "range": "范围", "range_reduction": "范围缩小", "clipped": "裁剪比例",
        "reorder_effect": "Reorder效果", "layers_affected": "影响层数", "average_range_reduction": "平均范围缩小",
        "results_compared": "结果对比", "difference": "差异", "results": "最终结果", "experiment": "实验",
    }  # fmt: skip
    assert {key: LABELS_ZH[key] for key in fixed} == fixed


def test_the_language_of_a_locale() -> None:
    """The first variable that is set decides; anything but Chinese is English."""
    assert language_of({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert language_of({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}) == "en"
    assert language_of({"LC_ALL": "", "LC_MESSAGES": "zh_TW"}) == "zh"
    assert language_of({}) == "en"


def test_tables_in_chinese(qlog: Qlog, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, variable or locale; columns are aligned in terminal columns; JSON and CSV stay English."""
    where = ["--collector", collector.endpoint]
    english = qlog("list", *where).out
    chinese = qlog("list", "--lang", "zh", *where).out
    lines = chinese.splitlines()
    assert lines[0].split() == [
        "#",
        "id",
        "时间",
        "模型",
        "量化",
        "alpha",
        "分组",
        "GPTQ",
        "准确率",
        "困惑度",
        "状态",
        "时长",
    ]
    place = lines[0].index("状态")
    assert width(lines[0][:place]) == width(lines[1][: lines[1].index("COMPLETED")])
    assert "激活统计" in qlog("show", "0", "--lang", "zh", *where).out
    monkeypatch.setenv("QLOG_LANG", "zh")
    assert qlog("list", *where).out == chinese
    assert qlog("list", "--lang", "en", *where).out == english
    assert qlog("list", "--format", "csv", *where).out.startswith("number,id,time")
    monkeypatch.delenv("QLOG_LANG")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert qlog("list", *where).out == chinese
