import contextlib
import csv
import io
import json
import math
import os
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.documents import Column, Facts, Flat, Note, Output, Row, Section, Table
from client.render import WRITERS, Format, write
from client.render_csv import write_csv
from client.render_json import json_text
from client.render_markdown import markdown
from client.render_plain import plain

TABLE = Table(
    (Column("name"), Column("value", right=True)),
    (Row(("mamba-2m", "1.5")), Row(("模型", "10.25"), marked=True)),
    "Results",
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_every_form_has_a_writer() -> None:
    """The table of writers is total."""
    assert set(WRITERS) == set(Format)


def test_plain_columns_are_aligned() -> None:
    """Each column begins at the same place in every line, counted in columns of a terminal, and marks stand before."""
    assert plain([TABLE]).splitlines() == [
        "Results",
        "  name      value",
        "  mamba-2m    1.5",
        "* 模型      10.25",
    ]


def test_plain_tables_cut_nothing_off() -> None:
    """A cell of any length is there whole."""
    long = "x" * 500
    assert long in plain([Table((Column("a"),), (Row((long,)),))])


def test_sections_stand_apart() -> None:
    """An empty line is between two sections."""
    assert plain([Note("one"), Facts((("a", "1"), ("bcd", "2")), "T")]) == "one\n\nT\n  a    1\n  bcd  2\n"


@given(json_values)
def test_json_reads_back(value: Any) -> None:
    """What was written is read as the same value, in one line or many."""
    assert json.loads(json_text(value)) == value
    assert json.loads(json_text(value, indent=None)) == value
    assert "\n" not in json_text(value, indent=None)


def test_json_has_strings_for_numbers_that_are_not_finite() -> None:
    """NaN and infinities are the strings of the record, at any depth; keys keep their order."""
    text = json_text({"z": [math.nan, {"y": math.inf}], "a": -math.inf}, indent=None)
    assert text == '{"z": ["NaN", {"y": "Infinity"}], "a": "-Infinity"}'


@given(st.text())
def test_json_steers_no_terminal(text: str) -> None:
    """No control character stands in JSON as itself."""
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in json_text(text))


def test_csv_keeps_data() -> None:
    """Numbers have all their digits, lists are JSON, and a comma does not part a cell."""
    stream = io.StringIO()
    row = (0.1 + 0.2, None, True, "a=1+1", 'a,"b"', {"k": [math.nan]}, math.nan, "\x1b[31m")
    write_csv(Flat(tuple("abcdefgh"), [row]), stream)
    header, read = csv.reader(io.StringIO(stream.getvalue()))
    assert header == list("abcdefgh")
    assert read == ["0.30000000000000004", "", "true", "a=1+1", 'a,"b"', '{"k": ["NaN"]}', "NaN", "\\x1b[31m"]


def test_csv_has_no_formulas() -> None:
    """What a spreadsheet would run is text there, in headings too; numbers stay numbers, negative ones as well."""
    stream = io.StringIO()
    row = ("=1+1", "+cmd|' /C calc'!A0", "-7d", "@SUM(A1)", "\t=1", -1.5, "-1e5", -math.inf)
    write_csv(Flat(("=x", *"bcdefgh"), [row]), stream)
    header, read = csv.reader(io.StringIO(stream.getvalue()))
    assert header[:2] == ["'=x", "b"]
    assert read == ["'=1+1", "'+cmd|' /C calc'!A0", "'-7d", "'@SUM(A1)", "\\t=1", "-1.5", "-1e5", "-Infinity"]


def test_markdown_has_no_links() -> None:
    """A name that looks like a link or an image leads nowhere; intervals keep their brackets."""
    text = markdown([Table((Column("a"),), (Row(("![x](http://y)",)), Row(("[-1, 2]",))))])
    assert "](" not in text
    assert "[-1, 2]" in text


def test_markdown_cells_hold_pipes() -> None:
    """A pipe in a cell does not end it, and every line has as many cells as the heading."""
    text = markdown(
        [Table((Column("a|b"), Column("c", right=True)), (Row(("x|y", "<b>")), Row(("*", "2"), marked=True)))]
    )
    lines = text.splitlines()
    assert lines[0] == "|  | a\\|b | c |"
    assert lines[1] == "| --- | --- | ---: |"
    assert lines[2] == "|  | x\\|y | \\<b> |"
    assert lines[3] == "| \\* | \\* | 2 |"


def on_terminal(sections: tuple[Section, ...]) -> str:
    """What a terminal gets."""
    ours, theirs = os.openpty()
    try:
        with os.fdopen(theirs, "w") as stream:
            write(Output(sections, None), Format.TABLE, stream)
        # A terminal hands out what was written in pieces, and an error once the other end is closed and all is read.
        pieces = []
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        return b"".join(pieces).decode()
    finally:
        os.close(ours)


@pytest.fixture(params=[120, 24, 5])
def _columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is wide enough, one that needs folding, and one where nothing helps."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(request.param))


@pytest.mark.usefixtures("_columns")
def test_a_terminal_gets_colours_and_the_same_words() -> None:
    """States are coloured; words stay whole; what comes from a record is never taken for markup."""
    table = Table(TABLE.columns, (*TABLE.rows, Row(("[b] some more words [/b]", "7"), style="FAILED")), "Title")
    text = on_terminal((table, Facts((("a", "COMPLETED"), ("b", "x " * 30))), Note("[i]")))
    assert "\x1b[1m" in text
    for word in ("mamba-2m", "模型", "[b]", "words", "[/b]", "10.25", "COMPLETED", "Title", "[i]"):
        assert word in text
    assert text.count("x") - text.count("\x1b") <= 30


@pytest.mark.usefixtures("_columns")
def test_a_terminal_without_colours_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a dumb terminal are heeded, at any width."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in on_terminal((TABLE,))
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_terminal((TABLE,))


def test_a_narrow_terminal_gets_folded_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is folded between words, within its column; what cannot be is left to the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")

    def lines(text: str) -> list[str]:
        table = Table((Column("a"), Column("b")), (Row((text, "yz")),))
        return re.sub("\x1b\\[[0-9;]*m", "", on_terminal((table,))).splitlines()

    words = lines("one two three four five six")
    assert max(map(len, words)) <= 20
    assert words[1].endswith("yz")
    assert " ".join(line[:14].strip().removesuffix("yz").strip() for line in words[1:]) == "one two three four five six"
    assert lines("x" * 30) == ["a", "    b", "x" * 30, "    yz"]


def narrow(table: Table, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a table on a terminal without colours."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(columns))
    return [line.rstrip() for line in on_terminal((table,)).splitlines()]


def test_groups_of_columns_become_lines_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each experiment has of a tensor stands in a line of its own below the tensor's name."""
    columns = (
        Column("tensor"),
        *(Column(name, True, group) for group in ("#0", "#12") for name in ("before", "after")),
    )
    table = Table(columns, (Row(("in_proj", "1 [0, 1]", "2", "3", "4"), marked=True), Row(("x", *"abcd"))), "Ranges")
    assert narrow(table, 80, monkeypatch) == [
        "Ranges",
        "  tensor   #0 before  #0 after  #12 before  #12 after",
        "* in_proj   1 [0, 1]         2           3          4",
        "  x                a         b           c          d",
    ]
    assert narrow(table, 40, monkeypatch) == [
        "Ranges",
        "  tensor    before  after",
        "* in_proj",
        "    #0    1 [0, 1]      2",
        "    #12          3      4",
        "  x",
        "    #0           a      b",
        "    #12          c      d",
    ]
    assert narrow(table, 20, monkeypatch)[3:6] == ["* in_proj", "    #0    1 [0, 1]", "          2"]


def test_a_row_that_is_too_wide_is_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long value does not widen the columns of all others."""
    rows = [Row((f"key{place}", "1", "2")) for place in range(4)]
    table = Table((Column("key"), Column("#0"), Column("#12")), (rows[0], Row(("d", "x" * 30, "y")), *rows[1:]))
    assert narrow(table, 20, monkeypatch) == [
        *("key   #0  #12", "key0  1   2", "d", "    #0   " + "x" * 30, "    #12  y"),
        *("key1  1   2", "key2  1   2", "key3  1   2"),
    ]


def test_columns_that_do_not_fit_go_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heading and rows are broken at the same columns, which stay aligned."""
    names = ("alpha", "beta", "gamma", "delta")
    table = Table(tuple(Column(name, True) for name in names), (Row(tuple("1234")), Row(("10000", "2", "3", "4"))))
    assert narrow(table, 18, monkeypatch) == [
        *("alpha  beta  gamma", "    delta", "    1     2      3", "        4"),
        *("10000     2      3", "        4"),
    ]


@given(st.data())
def test_no_width_loses_a_word(data: st.DataObject) -> None:
    """Whatever the terminal's width, every word of every cell is there whole, and every heading."""
    words = st.text("abcdef模", min_size=1, max_size=9)
    cells = st.lists(words, max_size=4).map(" ".join)
    count = data.draw(st.integers(1, 5))
    groups = data.draw(st.booleans()) and count % 2 == 1 and count > 1
    columns = tuple(
        Column(data.draw(words), group=f"#{(place - 1) // 2}" if groups and place else "") for place in range(count)
    )
    if groups:
        columns = (
            columns[0],
            *(Column(f"h{place % 2}", group=column.group) for place, column in enumerate(columns[1:])),
        )
    row = st.builds(Row, st.tuples(*[cells] * count), st.booleans())
    table = Table(columns, tuple(data.draw(st.lists(row, min_size=1, max_size=6))))
    with pytest.MonkeyPatch.context() as patch:
        shown = narrow(table, data.draw(st.integers(8, 60)), patch)
    found = Counter(word for line in shown for word in line.split())
    wanted = Counter(word for each in table.rows for cell in each.cells for word in cell.split())
    assert wanted <= found
    assert {column.heading for column in columns} <= set(found)
