"""The file of tags and amendments, damaged at every byte: what is whole is said, the rest costs itself alone."""

import shutil
from pathlib import Path

import pytest

from collector.annotations import Annotation
from collector.meta import Meta
from collector.names import META_NAME


def opened_meta(log_dir: Path, *, read_only: bool) -> Meta:
    meta = Meta(log_dir / META_NAME, read_only=read_only, layer=None, place=lambda subject: subject.get("number"))
    meta.settle()
    meta.refresh()
    return meta


def said(meta: Meta) -> dict[int, tuple[str, ...]]:
    return {number: annotation.tags for number, annotation in meta.annotations.items()}


def three_lines(log_dir: Path) -> list[bytes]:
    """A tag for each of three experiments."""
    log_dir.mkdir(parents=True)
    meta = opened_meta(log_dir, read_only=False)
    for number in range(3):
        meta.annotate({"number": number}, Annotation((f"t{number}",)), "2026-11-05T15:30:00Z")
    meta.close()
    return (log_dir / META_NAME).read_bytes().splitlines(keepends=True)


def cut_at(log_dir: Path, lines: list[bytes], cut: int, caplog) -> None:
    data = b"".join(lines)[:cut]
    log_dir.mkdir()
    (log_dir / META_NAME).write_bytes(data)
    caplog.clear()
    meta = opened_meta(log_dir, read_only=False)
    whole = data.count(b"\n")
    assert said(meta) == {number: (f"t{number}",) for number in range(whole)}
    rest = data.rpartition(b"\n")[2]
    assert [file.read_bytes() for file in log_dir.glob("*.torn-*")] == ([rest] if rest else [])
    assert len(caplog.records) == (1 if rest else 0)
    meta.annotate({"number": 9}, Annotation(("more",)), "2026-11-05T15:30:00Z")
    meta.close()
    again = opened_meta(log_dir, read_only=True)
    assert said(again) == {**{number: (f"t{number}",) for number in range(whole)}, 9: ("more",)}
    assert again.corrupt == 0
    again.close()
    shutil.rmtree(log_dir)


def test_cut_within_the_last_two_lines_it_says_what_is_before(tmp_path, caplog):
    """At a sample of bytes, those around newlines among them: whole lines are said, half a line is set aside once."""
    lines = three_lines(tmp_path / "source")
    first, second, end = len(lines[0]), len(lines[0]) + len(lines[1]), sum(map(len, lines))
    for cut in {first, first + 1, second - 1, second, second + 1, end - 1, end, *range(first, end, 23)}:
        cut_at(tmp_path / str(cut), lines, cut, caplog)


@pytest.mark.long
def test_cut_at_every_byte_of_the_last_two_lines(tmp_path, caplog):
    """The same at every byte."""
    lines = three_lines(tmp_path / "source")
    for cut in range(len(lines[0]), sum(map(len, lines)) + 1):
        cut_at(tmp_path / str(cut), lines, cut, caplog)


def test_any_byte_flipped_costs_its_own_line_and_nothing_else(tmp_path, caplog):
    """Every byte of the line in the middle; a newline that is lost takes the line behind it along at most."""
    lines = three_lines(tmp_path / "source")
    log_dir = tmp_path / "logs"
    log_dir.mkdir()
    for place in range(len(lines[1])):
        for bit in (0x04, 0x80):
            middle = bytearray(lines[1])
            middle[place] ^= bit
            (log_dir / META_NAME).write_bytes(lines[0] + bytes(middle) + lines[2])
            caplog.clear()
            meta = opened_meta(log_dir, read_only=True)
            found = said(meta)
            meta.close()
            assert found.pop(0) == ("t0",)
            if place < len(lines[1]) - 1:
                assert found == {2: ("t2",)}, f"byte {place}"
            else:
                assert found in ({}, {1: ("t1",), 2: ("t2",)})
            assert len(caplog.records) <= 1
