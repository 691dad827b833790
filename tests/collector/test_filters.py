"""Filters and orders of lists, through a real server: what each row of the product's table matches."""

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qlog.v1 import common_pb2 as pb

from collector.annotations import Annotation
from collector.errors import FilterError
from collector.filters.meaning import read_filter
from collector.filters.pointer import pointer
from collector.filters.sql import compile_filter
from collector.index_sqlite import SqliteIndex
from collector.store import LOG_NAME
from tests.collector.builders import LEGACY_LINE, begin, details, finish, new_id, result, serving, stats

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """0: of the earlier logger; 1 to 3: three models, the last one failed; one that runs."""
    log_dir = tmp_path_factory.mktemp("filters")
    (log_dir / LOG_NAME).write_bytes(LEGACY_LINE)
    with serving(log_dir) as client:
        for place, model in enumerate(["mamba-2m", "mamba2-4m", "mamba-130m"]):
            config = {"group_heads": place == 1, **({"percentile_alpha": 1.0} if place else {})}
            status = pb.EXPERIMENT_STATUS_FAILED if place == 2 else pb.EXPERIMENT_STATUS_COMPLETED
            client.append(new_id(), [begin(model, **config), stats(), result(0.3 + place / 10), finish(status)])
        client.append(new_id(), [begin("mamba-running"), stats("layer_0.in_proj:input")])
        yield client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3, None]),
        ("mamba-370m", [0]),
        ("370", [0]),
        ("MAMBA-370M", [0]),
        ('"run mamba2"', [2]),
        ("mamba*4m", [2]),
        ("percentile_alpha: 1.0", [2, 3]),
        ("percentile_alpha: 1", [2, 3]),
        ("percentile_alpha: null", [0, 1, None]),
        ("percentile_alpha != null", [2, 3]),
        ("group_heads: true", [2]),
        ("NOT group_heads: true", [0, 1, 3, None]),
        ("config.w_bits = 8 AND results.accuracy > 0.4", [0, 3]),
        ("w_bits = 8 accuracy < 0.35", [1]),
        ("accuracy != 0.5", [0, 1, 2]),
        ('model = "mamba2-*" OR model = mamba-130m', [2, 3]),
        ("model = mamba-2m OR model = mamba-130m accuracy > 0.35", [3]),
        ("model: 2m", [1]),
        ("model = 2m", []),
        ('timestamp > "2026-11-01"', [1, 2, 3, None]),
        ('timestamp = "2025-11-05"', [0]),
        ("timestamp < 2026", [0]),
        ("timestamp > -1s", []),
        ("timestamp > -36500d", [0, 1, 2, 3, None]),
        ("timestamp < now()", [0, 1, 2, 3, None]),
        ("year(timestamp) = 2025", [0]),
        ('date(timestamp) = "2026-11-05"', [1, 2, 3, None]),
        ("-status: FAILED", [0, 1, 2, None]),
        ("status: (FAILED OR RUNNING)", [3, None]),
        ("(status: failed OR group_heads: true) -model: 4m", [3]),
        ("duration < 2s", [1, 2, 3]),
        ('anyLayer("*.x_proj:input", "clipped_ratio") > 0.0001', [0, 1, 2, 3]),
        ('anyLayer("*", "before_percentile.range") > 100', [0]),
        ('anyLayer("*.in_proj:*", "observer") = ema', [None]),
        ("results.tasks.cloze.acc >= 0.4", [2, 3]),
        ("results.tasks.cloze: *", [1, 2, 3]),
        ("acc < 0.35", [1]),
        ("number >= 2", [2, 3]),
        ("number: null", [None]),
        ("experiment_id: null", [0]),
        ("x' OR '1'='1", []),
    ],
)
def test_what_a_filter_matches(lines, text, expected):
    """The same for lines and for what runs, on one page or on pages of one."""
    page = lines.list(filter=text, include_running=True)
    assert [e.number if e.HasField("number") else None for e in page.experiments] == expected
    assert page.total_size == len(expected)
    one_by_one, token = [], ""
    while True:
        page = lines.list(filter=text, include_running=True, page_size=1, page_token=token)
        one_by_one += [e.number if e.HasField("number") else None for e in page.experiments]
        token = page.next_page_token
        if not token:
            break
    assert one_by_one == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("results.accuracy desc", [0, 3, 2, 1, None]),
        ("accuracy", [1, 2, 3, 0, None]),
        ("w_bits, number desc", [None, 3, 2, 1, 0]),
        ("model desc", [2, None, 0, 1, 3]),
        ("results.tasks.cloze.acc", [1, 2, 3, 0, None]),
    ],
)
def test_any_field_orders(lines, order, expected):
    """What is absent stands last, equals stand by number, and pages of one make the same list."""
    found, token = [], ""
    while True:
        page = lines.list(order_by=order, include_running=True, page_size=1, page_token=token)
        found += [e.number if e.HasField("number") else None for e in page.experiments]
        token = page.next_page_token
        if not token:
            break
    assert found == expected


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("acuracy > 1", (0, 7), "accuracy"),
        ("w_bits > abc", (9, 12), "number"),
        ("status: FAILD", (8, 13), "FAILED"),
        ("a b )", (4, 5), "')'"),
        ("model == x", (6, 8), "="),
        ("model = x and w_bits = 4", (10, 13), "AND"),
        ('"open', (0, 1), "never closed"),
        ("(model = x", (10, 11), "ends"),
        ("timestamp > soon", (12, 16), "time"),
        ('anyLayer("*", "cliped_ratio") > 1', (14, 28), "clipped_ratio"),
        ("foo() = 1", (0, 4), "anyLayer"),
        ("(" * 40 + "a" + ")" * 40, (32, 33), "deeper"),
        (" ".join(["a"] * 200), (0, 399), "terms"),
        ("x" * 5000, (0, 40), "5000"),
    ],
)
def test_what_is_wrong_is_pointed_at(lines, text, place, says):
    """INVALID_ARGUMENT in one line; the violation shows the filter with carets under the place."""
    with pytest.raises(grpc.RpcError) as caught:
        lines.list(filter=text)
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()
    assert "\n" not in error.details()
    (violation,) = details(error)["BadRequest"].field_violations
    first, shown, carets = violation.description.splitlines()
    assert (violation.field, first) == ("filter", error.details())
    if len(text) < 60:
        assert shown == f"  {text}"
        assert carets == " " * (2 + place[0]) + "^" * (place[1] - place[0])


def test_a_caret_stands_under_wide_characters():
    """East Asian characters take two columns, control characters are shown as text."""
    assert pointer("模型 = \x1b x", 7, 8) == "  模型 = \\x1b x\n" + " " * 14 + "^"
    assert pointer("a 模型", 2, 4) == "  a 模型\n    ^^^^"


def test_the_export_takes_a_filter(lines):
    """The lines that match, byte for byte."""
    from qlog.v1 import collector_pb2 as wire

    request = wire.ExportExperimentsRequest(filter="mamba-370m")
    assert b"".join(part.chunk for part in lines.stub.ExportExperiments(request, timeout=10)) == LEGACY_LINE


def test_what_was_said_is_found(tmp_path):
    """Tags and notes are words and fields; amendments replace what lines say."""
    with serving(tmp_path) as client:
        for _ in range(3):
            client.record()
        index = client.server.store.index()
        index.annotate(0, Annotation(("paper", "good one"), "Worth another look", archived=False))
        index.annotate(1, Annotation(archived=True))

        def numbers(text):
            return [e.number for e in client.list(filter=text).experiments]

        assert numbers("") == [0, 1, 2]
        assert numbers("tags: paper") == numbers("another") == numbers('tags = "good one"') == [0]
        assert numbers("-tags: paper") == [1, 2]
        assert numbers("archived: true") == [1]
        assert numbers("-archived: true") == [0, 2]
        index.annotate(0, Annotation())
        assert numbers("another") == []
        index.amend(2, {"config": {"model": "amended"}, "status": "LOST", "deep": {"a.b": 7}})
        assert numbers("amended") == numbers("deep.a.b = 7") == numbers("status: LOST") == [2]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab()\"'<>=!:,.-* \\~&ANDORT09模\x00", max_size=40))
def test_any_text_is_a_filter_or_refused(text):
    """Nothing but FilterError, and what is accepted is SQL."""
    index = SqliteIndex(None, lambda _offset, _length: b"", lambda entry: {})
    try:
        condition = read_filter(text, index, NOW)
        if condition is not None:
            index.matching(compile_filter(condition, index.places()))
    except FilterError as error:
        refusal = error
    else:
        return
    finally:
        index.close()
    assert 0 <= refusal.start <= refusal.end <= len(text) + 1
    assert pointer(refusal.text, refusal.start, refusal.end).count("\n") == 1
