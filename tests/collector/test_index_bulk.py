"""An index made in one go, in parts and by several processes, is the one that is made line by line."""

import sqlite3
from contextlib import closing

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.index_cut import cut_of, summary_at
from collector.lines import CHECKSUM_KEY, decode_as_written, decode_line, encode_line
from collector.names import INDEX_NAME, LOG_NAME
from tests.collector.builders import LEGACY_LINE, opened, stored_record

_TABLES = ("lines", "summaries", "texts", "state")


def _log():
    """Every kind of line, many times: of this program, of the earlier one, blank, corrupt, two in one."""
    parts = []
    for number in range(300):
        parts.append(encode_line(stored_record(number)))
        if number % 7 == 0:
            parts.append(LEGACY_LINE)
        if number % 31 == 0:
            parts.append(b"\n")
        if number % 41 == 0:
            parts.append(b'{"half": \n')
        if number % 53 == 0:
            parts.append(encode_line(stored_record(number + 1000))[:-1] + b"\x0b" + encode_line({"second": number}))
    return b"".join(parts)


def _tables(log_dir):
    with closing(sqlite3.connect(log_dir / INDEX_NAME)) as connection:
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in _TABLES}
        for table, column in (("paths", "keys"), ("statistics", "name")):
            found[table] = connection.execute(f"SELECT {column} FROM {table} ORDER BY 1").fetchall()
        found["ids"] = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY 1").fetchall()
    # The mark has the time of the file.
    found["state"] = [row[:5] for row in found["state"]]
    return found


@pytest.fixture
def step_by_step(tmp_path):
    """A log's index, made in steps."""
    log_dir = tmp_path / "steps"
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(_log())
    with opened(log_dir) as store:
        listed = [(entry.number, entry.summary, entry.error) for entry in store.index().page(0, 1000, descending=False)]
    return _tables(log_dir), listed


@pytest.mark.parametrize("helped", ["alone", "helped", "helpers that fail"])
def test_parts_make_the_same_index(step_by_step, tmp_path, monkeypatch, helped):
    """With the same numbers, the same names, the same texts, whoever has read which part."""
    monkeypatch.setattr("collector.index_open._LONG_BYTES", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})
    if helped != "alone":
        monkeypatch.setattr("collector.index_part._LEAST_BYTES", 10_000)
    if helped == "helpers that fail":
        monkeypatch.setattr("sys.executable", "/bin/false")
    log_dir = tmp_path / "parts"
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(_log())
    left = log_dir / f"{INDEX_NAME}.999999999.new"
    left.write_bytes(b"of a process that was killed")
    with opened(log_dir) as store:
        index = store.index()
        assert [(entry.number, entry.summary, entry.error) for entry in index.page(0, 1000, descending=False)] == (
            step_by_step[1]
        )
    assert _tables(log_dir) == step_by_step[0]
    assert not left.exists()
    assert not [path for path in log_dir.iterdir() if "parts" in path.name or path.suffix == ".new"]


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",:{}\\')),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "activation_stats", "b,", 'c"', "reorder_summary"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["config", "x", "reorder_summary", "b,", 'c"']), json, max_size=4),
    json,
    st.integers(0, 4),
)
def test_what_is_cut_out_is_the_record(record, stats, place):
    """Whatever the keys and texts in it: all but its statistics and its checksum; else it is not cut at all."""
    items = list(record.items())
    whole = dict([*items[:place], ("activation_stats", stats), *items[place:]])
    line = encode_line(whole)
    read = decode_as_written(line)
    assert read is not None
    assert read.pop(CHECKSUM_KEY)
    assert read == decode_line(line).record
    if not isinstance(stats, dict):
        return
    cut = cut_of(line, (*whole, CHECKSUM_KEY))
    if cut is not None:
        before = b"other lines\n"
        text = summary_at(lambda offset, length: (before + line)[offset : offset + length], len(before), len(line), cut)
        assert orjson.loads(text) == record


def test_most_lines_are_cut():
    """The lines that this program writes are."""
    line = encode_line(stored_record(1))
    assert cut_of(line, (*stored_record(1), CHECKSUM_KEY)) is not None
