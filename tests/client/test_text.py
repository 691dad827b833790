import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.text import as_text, duration, escape, escape_lines, fixed, number, pad, percent, signed, size, width


@given(st.text())
def test_escaped_text_holds_nothing_that_steers_a_terminal(text: str) -> None:
    """After escaping no control character is left, and text without any is as before."""
    escaped = escape(text)
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in escaped)
    assert not set("\u2028\u2029\u202e\u2066") & set(escaped)
    assert escape(escaped) == escaped


def test_an_ansi_sequence_is_shown_and_not_obeyed() -> None:
    """The escape character of a colour becomes its code."""
    assert escape("\x1b[31mred\n") == "\\x1b[31mred\\n"
    assert escape_lines("a\x1b\nb") == "a\\x1b\nb"


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("模型", 4), ("e\u0301", 1), ("", 0)])
def test_width_counts_columns(text: str, columns: int) -> None:
    """East Asian characters take two columns, combining ones none."""
    assert width(text) == columns
    assert width(pad(text, 8)) == 8
    assert pad(text, 8, right=True).endswith(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (8, "8"),
        (1.0, "1.0"),
        (0.0, "0.0"),
        (1 / 3, "0.333333"),
        (1e-9, "1e-09"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ([0, 1.5], "0, 1.5"),
        ({"a": None}, "a: -"),
        ("x\ty", "x\\ty"),
    ],
)
def test_any_json_value_has_a_text(value: object, text: str) -> None:
    """Whole numbers stay whole, fractions stay fractions, what is not finite is called as in the log."""
    assert as_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_text_is_the_number(value: float) -> None:
    """Six digits tell a number to one part in 100,000."""
    assert float(number(value)) == pytest.approx(value, rel=1e-5)


def test_differences_carry_their_sign() -> None:
    """A rise has a plus, a fall a minus, and what rounds to nothing neither."""
    assert [signed(value, 2) for value in (1.25, -1.25, 0.001, -0.001)] == ["+1.25", "-1.25", "0.00", "0.00"]
    assert [signed(value) for value in (5426048.0, -281.7756, 0.0, math.nan)] == [
        "+5426048.0",
        "-281.776",
        "0.0",
        "NaN",
    ]


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    """Two decimals of kB, MB or GB (powers of 1000), whole bytes below; a difference has its sign unless it is 0."""
    assert [size(value) for value in (0, 512, 9_187_584, 516_540_000.0, 5_559_367_680, 999_999_999)] == [
        *("0 bytes", "512 bytes", "9.19 MB", "516.54 MB", "5.56 GB", "1.00 GB"),
    ]
    assert [size(value, sign="+") for value in (5_426_048, -312_000, 0)] == ["+5.43 MB", "-312.00 kB", "0 bytes"]
    assert [size(value) for value in (None, "many", math.inf, True)] == ["-", "many", "Infinity", "yes"]


def test_units_are_those_of_the_record() -> None:
    """Fractions are shown in per cent, seconds in what people say, and what is no number as it is."""
    assert percent(0.0646) == "6.46 %"
    assert percent("NaN") == "NaN"
    assert fixed(None, 3) == "-"
    assert [duration(value) for value in (9.26, 83.25, 3599.6, 7325.0)] == [
        "9.3 s",
        "1 min 23 s",
        "1 h 00 min",
        "2 h 02 min",
    ]
