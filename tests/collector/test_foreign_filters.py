"""Filters as clients of other makers write them: quotes, escapes, scripts, has, zones, types that do not agree."""

import grpc
import pytest

from collector.annotations import Annotation
from collector.lines import encode_line
from collector.store import LOG_NAME
from tests.collector.builders import serving

_RECORDS = [
    {
        "timestamp": "2026-11-05 15:30:00",
        "command": "run mamba-2m --seed 1",
        "config": {
            "model": "mamba-2m",
            "w_bits": 4,
            "percentile_alpha": 1.0,
            "opts": {"a": {"b": 3}},
            "names": ["x", "y z"],
            "neg": -5,
            "esc": 'say "hi" \\ there',
        },
        "experiment_id": "aaaaaaaa-0000-7000-8000-000000000001",
        "status": "COMPLETED",
        "duration_s": 90.0,
        "start_time": "2026-11-05T15:30:00+08:00",
        "results": {"accuracy": 0.5},
    },
    {
        "timestamp": "2026-11-06 15:30:00",
        "command": "运行 模型",
        "config": {"model": "模型-2", "w_bits": 8, "percentile_alpha": None},
        "experiment_id": "bbbbbbbb-0000-7000-8000-000000000002",
        "status": "FAILED",
        "error": "CUDA out of memory",
        "duration_s": 4000.0,
        "start_time": "2026-11-06T15:30:00Z",
        "results": {"accuracy": "NaN"},
    },
    {
        "timestamp": "2026-12-06 15:30:00",
        "command": "c",
        "config": {"model": "AND", "w_bits": "8"},
        "experiment_id": "cccccccc-0000-7000-8000-000000000003",
        "status": "LOST",
        "results": {"accuracy": None},
    },
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The records above; the first has tags and a note."""
    log_dir = tmp_path_factory.mktemp("foreign")
    (log_dir / LOG_NAME).write_bytes(b"".join(map(encode_line, _RECORDS)))
    with serving(log_dir) as client:
        client.server.store.index().annotate(0, Annotation(("paper", "v2.1"), "note x"))
        yield client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("   ", [0, 1, 2]),
        ("*", [0, 1, 2]),
        ("-a", [1]),
        ('status=FAILED OR status=LOST model="AND"', [2]),
        ('model = "AND" OR status=FAILED AND w_bits=8', [1, 2]),
        ("(" * 25 + "status=FAILED" + ")" * 25, [1]),
        ("model = 'mamba-2m'", [0]),
        (r'config.esc = "say \"hi\" \\ there"', [0]),
        (r'config.esc: "\"hi\""', [0]),
        (r'model = "mamba-\*"', []),
        ('"config"."model" = mamba-2m', [0]),
        ("模型", [1]),
        ("model = 模型-2", [1]),
        ('"AND"', [2]),
        ("config.neg = -5", [0]),
        ("config.neg > -5.5e0", [0]),
        ("results.accuracy > +.4", [0]),
        ("w_bits = 8", [1, 2]),
        ('w_bits = "8"', [1, 2]),
        ("w_bits > 4", [1]),
        ("w_bits != 4", [1, 2]),
        ("accuracy = NaN", [1]),
        ("accuracy = null", [2]),
        ("accuracy: *", [0, 1]),
        ("percentile_alpha = null", [1, 2]),
        ('config.names: "y z"', [0]),
        ('config.names: (x AND "y z")', [0]),
        ("config.opts: a", [0]),
        ("config.opts.a: b", [0]),
        ("config.opts.a.b = 3", [0]),
        ("config: model", [0, 1, 2]),
        ("results: accuracy", [0, 1, 2]),
        ("tags: v2.1", [0]),
        ("tags: (paper OR zzz)", [0]),
        ("NOT tags: *", [1, 2]),
        ('note = "NOTE X"', [0]),
        ('error: "out of memory"', [1]),
        ("id: aaaaaaaa*", [0]),
        ('id = "AAAAAAAA-0000-7000-8000-000000000001"', [0]),
        ("number >= 1 number < 2", [1]),
        ("duration_s > 1h", [1]),
        ("duration_s >= 1.5m", [0, 1]),
        ('start_time = "2026-11-05T07:30:00Z"', [0]),
        ('start_time >= "2026-11-05T15:30:00+08:00" start_time < "2026-11-05T15:30:01+08:00"', [0]),
        ('timestamp: "2026-11*"', [0, 1]),
        ("timestamp < 2026-12", [0, 1]),
        ("month(timestamp) = 12", [2]),
        ("archived = false", [0, 1, 2]),
    ],
)
def test_what_a_foreign_filter_matches(lines, text, expected):
    """What AIP-160 says, and where it says nothing, what one expects."""
    assert [experiment.number for experiment in lines.list(filter=text).experiments] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("status = COMPLETED AND", "ends"),
        ("OR a", "'OR'"),
        ("a AND AND b", "'AND'"),
        ("model = = x", "'='"),
        ("model => x", "'>'"),
        ("a && b", "write AND"),
        ("a || b", "write OR"),
        ('model ~ "x"', "with *"),
        ('model =~ "x"', "with *"),
        ("status: ()", "')'"),
        ("w_bits = 4, a_bits = 8", "','"),
        ("foo(bar)", "anyLayer"),
        ("config..model = x", "did you mean config.model"),
        ("duration_s < null", "needs a number"),
        ("timestamp > tomorrow", "is no time"),
        ("date(timestamp) > -" + "9" * 400 + "d", "too far away"),
        ("config.names = daysAgo(1e300)", "too far away"),
        ("timestamp > ago(soon)", "cannot be had"),
    ],
)
def test_what_no_filter_is_refused_with_advice(lines, text, says):
    """INVALID_ARGUMENT, in one line."""
    with pytest.raises(grpc.RpcError) as caught:
        lines.list(filter=text)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in caught.value.details()
    assert "\n" not in caught.value.details()
