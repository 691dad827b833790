"""One line: what is written is read, what is damaged is noticed, what people had in their hands is understood."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.lines import LineError, decode_line, encode_line, is_blank, iterate_lines, split_lost_newlines
from tests.collector.builders import LEGACY_LINE

RECORD = {"timestamp": "2026-11-05 15:30:00", "config": {"w_bits": 8, "alpha": 1.0}, "schema_version": 1}


def test_a_line_reads_back_as_it_was_written():
    """decode(encode(r)) = r, with whole numbers and fractions kept apart, and verified."""
    line = decode_line(encode_line(RECORD))
    assert line.record == RECORD
    assert line.verified
    assert isinstance(line.record["config"]["alpha"], float)
    assert isinstance(line.record["config"]["w_bits"], int)


def test_the_checksum_is_the_last_key_over_the_bytes_before_it():
    """The documented form: crc32c, 8 hexadecimal digits, over everything before `,"crc32c":"`."""
    import google_crc32c

    line = encode_line(RECORD)
    body, _, rest = line.partition(b',"crc32c":"')
    assert rest == b'%08x"}\n' % google_crc32c.value(body)
    assert list(json.loads(line))[-1] == "crc32c"


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_no_flipped_byte_goes_unnoticed(flip):
    """Any byte changed anywhere before the newline makes the line corrupt."""
    line = encode_line(RECORD)
    for place in range(len(line) - 1):
        damaged = bytearray(line)
        damaged[place] ^= flip
        with pytest.raises(LineError):
            decode_line(bytes(damaged))


def test_a_line_of_the_earlier_logger_is_read_unverified():
    """Fixed keys only, no checksum: every number as it stands."""
    line = decode_line(LEGACY_LINE)
    assert not line.verified
    assert line.record == json.loads(LEGACY_LINE)


@pytest.mark.parametrize(
    "wrap",
    [lambda t: b"\xef\xbb\xbf" + t, lambda t: t[:-1] + b"\r\n", lambda t: b"\0" * 512 + t, lambda t: b" \t" + t],
    ids=["byte order mark", "CRLF", "NULs before", "blanks before"],
)
@pytest.mark.parametrize("line", [encode_line(RECORD), LEGACY_LINE], ids=["own", "legacy"])
def test_what_editors_and_power_cuts_add_is_no_part_of_the_line(wrap, line):
    """A byte order mark, CRLF, NULs and blanks around a line change neither record nor checksum."""
    assert decode_line(wrap(line)) == decode_line(line)


def test_what_python_json_writes_beyond_json_is_read():
    """Bare NaN and infinities become the log's strings; lone surrogates and long numbers do no harm."""
    text = b'{"a": NaN, "b": [-Infinity, Infinity], "c": "x\\ud800", "d": 1e999, "e": 123456789012345678901234567890}'
    record = decode_line(text).record
    assert record["a"] == "NaN"
    assert record["b"] == ["-Infinity", "Infinity"]
    assert record["c"] == "x?"
    assert record["d"] == "Infinity"
    assert record["e"] == 1.2345678901234568e29


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[1]",
        b"3",
        b"null",
        b'{"a": "\xff"}',
        b'{"a":1}garbage',
        b"\0\0\0",
        b"[" * 100_000,
        b'{"a":1,"crc32c":"0"}',
    ],
)
def test_what_is_no_record_is_corrupt(text):
    """Text that is no JSON object in UTF-8, or whose checksum has lost its form, is refused with a reason."""
    with pytest.raises(LineError, match=r"\w"):
        decode_line(text)


@pytest.mark.parametrize(
    ("line", "blank"), [(b"\n", True), (b" \t\r\n", True), (b"\xef\xbb\xbf\n", True), (b"\0\n", False)]
)
def test_blank_lines_are_no_records(line, blank):
    """White space is nothing; a NUL is damage."""
    assert is_blank(line) is blank


def test_damaged_newlines_are_found_again():
    """Two lines whose newline was changed are two lines, so that later numbers do not move."""
    first, second = encode_line(RECORD), encode_line({**RECORD, "command": "x"})
    merged = first[:-1] + b"\x0b" + second
    pieces = split_lost_newlines(merged)
    assert b"".join(pieces) == merged
    assert decode_line(pieces[1]).record == {**RECORD, "command": "x"}
    assert decode_line(pieces[0][:-1]).record == RECORD
    assert split_lost_newlines(first) == [first]


@given(st.binary(max_size=60).map(lambda b: b.replace(b"x", b"\n")), st.integers(1, 7), st.integers(1, 20))
def test_lines_do_not_depend_on_how_the_file_is_cut(data, chunk, longest):
    """However the bytes are cut, the lines are those of the whole; too long ones are counted, not kept."""
    chunks = (data[i : i + chunk] for i in range(0, len(data), chunk))
    found = list(iterate_lines(chunks, 100, longest))
    place = 100
    lines = [piece + b"\n" for piece in data.split(b"\n")[:-1]]
    assert len(found) == len(lines)
    for (offset, length, line), expected in zip(found, lines, strict=True):
        assert (offset, length) == (place, len(expected))
        assert line == (expected if len(expected) <= longest else None)
        place += length
