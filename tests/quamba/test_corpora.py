"""Laws of the texts: which documents are taken, how they are recorded, what is said when they cannot be read."""

import hashlib
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from quamba.corpora import assets_folder, calibration_documents, perplexity_text
from quamba.errors import DataError


def write_json_lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def test_builtin_gives_the_first_ones() -> None:
    """Without a seed the documents are the source's first, numbered from 0."""
    few, many = calibration_documents("builtin", 3), calibration_documents("builtin", 512)
    assert few.texts == many.texts[:3]
    assert few.ids == (0, 1, 2)
    assert len(many.texts) == 512
    assert all(len(text) >= 2400 for text in many.texts)
    assert (few.source, few.requested, few.seed) == ("builtin", 3, None)


def test_a_seed_really_shuffles() -> None:
    """The draw is random.Random(seed).sample over all documents; another seed gives another one."""
    everything = calibration_documents("builtin", 512)
    drawn = calibration_documents("builtin", 20, shuffle_seed=7)
    assert drawn.ids == tuple(random.Random(7).sample(range(512), 20))
    assert drawn.texts == tuple(everything.texts[number] for number in drawn.ids)
    assert drawn.seed == 7
    assert calibration_documents("builtin", 20, shuffle_seed=8).ids != drawn.ids
    assert calibration_documents("builtin", 20, shuffle_seed=7) == drawn


def test_the_digest_covers_texts_order_and_boundaries(tmp_path: Path) -> None:
    """It changes with a text, with the order and with where one text ends; not with the file's name."""
    digests = [
        calibration_documents(write_json_lines(tmp_path / f"{number}.jsonl", texts), 9).digest
        for number, texts in enumerate([["ab", "c"], ["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "d"]])
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    expected = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in (b"ab", b"c"))).hexdigest()
    assert digests[0] == f"sha256:{expected}"


def test_fewer_documents_than_asked_for_are_used_and_told(tmp_path: Path) -> None:
    """What there is, with the number that was asked for beside it; documents without text keep their number."""
    source = write_json_lines(tmp_path / "few.jsonl", ["one", " \n", "three"])
    documents = calibration_documents(source, 512)
    assert (documents.texts, documents.ids, documents.requested) == (("one", "three"), (0, 2), 512)
    assert documents.source == "few.jsonl"
    assert set(calibration_documents(source, 512, shuffle_seed=1).ids) == {0, 2}


def test_compressed_json_lines_are_read_as_they_come(tmp_path: Path) -> None:
    """A .jsonl.zst, as the Pile is distributed, is decompressed only as far as it is needed."""
    lines = b"".join(json.dumps({"text": f"document {number} 世界"}).encode() + b"\n" for number in range(2000))
    path = tmp_path / "val.jsonl.zst"
    # What follows the first frame is damage; the first documents do not depend on it.
    path.write_bytes(pa.compress(lines, codec="zstd", asbytes=True) + b"damage")
    assert calibration_documents(str(path), 2).texts == ("document 0 世界", "document 1 世界")
    with pytest.raises(DataError, match=r"val\.jsonl\.zst cannot be read"):
        calibration_documents(str(path), 5000)


def test_a_text_file_is_cut_at_blank_lines_into_long_passages(tmp_path: Path) -> None:
    """Every passage is long, none is lost or repeated, and none ends inside a paragraph."""
    paragraphs = [f"paragraph {number} " + "x" * (100 + 37 * number % 900) for number in range(60)]
    path = tmp_path / "book.txt"
    path.write_text("\n\n \n".join(paragraphs), encoding="utf-8")
    texts = calibration_documents(str(path), 1000).texts
    assert len(texts) > 5
    assert all(len(text) >= 2400 for text in texts)
    assert "\n\n".join(texts).split("\n\n") == paragraphs
    path.write_text("short", encoding="utf-8")
    assert calibration_documents(str(path), 1).texts == ("short",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "open', "line 3: no JSON"),
        ('{"ebook": 1}', 'line 3: no object with a string under "text"'),
        ('["text"]', "line 3: no object"),
        ('{"text": 5}', "line 3: no object"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    """Counting from 1, blank lines included."""
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        calibration_documents(str(path), 5)
    assert calibration_documents(str(path), 1).texts == ("good",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "neither pile, builtin nor"),
        ("pil", None, "neither pile, builtin nor"),
        ("data.csv", b"a,b", "must end in"),
        ("latin.txt", "café".encode("latin-1"), "is not UTF-8"),
        ("latin.jsonl", b'{"text": "caf\xe9"}\n', "line 1"),
        ("empty.txt", b" \n\n", "no document with text"),
        ("empty.jsonl", b"", "no document with text"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """Unknown names, other kinds of files, other encodings, nothing in them."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as failure:
        calibration_documents(str(tmp_path / name), 4)
    assert "\n" not in str(failure.value)


def test_no_documents_asked_for_is_refused() -> None:
    """Zero documents calibrate nothing."""
    with pytest.raises(DataError, match="at least 1"):
        calibration_documents("builtin", 0)


def test_the_shipped_corpora_do_not_overlap() -> None:
    """No stretch of a calibration passage occurs in the perplexity text."""
    heldout = " ".join(perplexity_text("gutenberg").split())
    for text in calibration_documents("builtin", 512).texts:
        words = " ".join(text.split())
        assert words[1000:1080] not in heldout
        assert words[:80] not in heldout


def test_wikitext_is_the_file_or_its_rows_joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it is; or a row a line that keeps its newline, empty for a blank one. Only "\\n" ends a line."""
    folder = tmp_path / "data" / "wikitext-2"
    folder.mkdir(parents=True)
    text = " \n = Title = \n \n one\u2028line\x85 here \n"
    (folder / "wiki.test.raw").write_text(text, encoding="utf-8")
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path))
    assert perplexity_text("wikitext2") == text
    assert perplexity_text("wikitext2_joined") == "\n\n = Title = \n\n\n\n\n one\u2028line\x85 here \n"


def test_wikitext_from_the_hub_is_the_same_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's table of rows gives the texts that the file gives."""
    import pyarrow.parquet

    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path / "absent"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--Salesforce--wikitext" / "snapshots" / ("0" * 40)
    (snapshot / "wikitext-2-raw-v1").mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    table = pa.table({"text": ["", " = Title = \n", "", " some text \n"]})
    pyarrow.parquet.write_table(table, snapshot / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet")
    assert perplexity_text("wikitext2") == " \n = Title = \n \n some text \n"
    assert perplexity_text("wikitext2_joined") == "\n\n = Title = \n\n\n\n\n some text \n"


def test_perplexity_text_is_a_files_own(tmp_path: Path) -> None:
    """A text file as it is; the documents of a JSONL file with a blank line between them."""
    path = tmp_path / "a.txt"
    path.write_text("héllo\n\nworld", encoding="utf-8")
    assert perplexity_text(str(path)) == "héllo\n\nworld"
    assert perplexity_text(write_json_lines(tmp_path / "a.jsonl", ["one", "two"])) == "one\n\ntwo"
    with pytest.raises(DataError, match="neither wikitext2, wikitext2_joined, gutenberg nor"):
        perplexity_text("wikitext3")


def test_the_assets_folder_counts_only_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$QLOG_ASSETS, else ../shared beside the working directory; None where there is no such folder."""
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path))
    assert assets_folder() == tmp_path
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path / "absent"))
    assert assets_folder() is None
    monkeypatch.delenv("QLOG_ASSETS")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert assets_folder() is None
    (tmp_path / "shared").mkdir()
    assert assets_folder() == Path("../shared")


def test_a_hub_file_comes_from_its_cache_without_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the hub's client has cached is used; without it and without a network the error is one line."""
    from quamba import hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="pile-uncopyrighted cannot be fetched") as failure:
        calibration_documents("pile", 1)
    assert "\n" not in str(failure.value)

    cached = tmp_path / "datasets--monology--pile-uncopyrighted"
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    lines = b"".join(json.dumps({"text": f"pile {number}"}).encode() + b"\n" for number in range(3))
    (snapshot / "val.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    assert hub.hub_file("monology/pile-uncopyrighted", "val.jsonl.zst", kind="dataset").parent == snapshot
    documents = calibration_documents("pile", 2)
    assert (documents.texts, documents.source) == (("pile 0", "pile 1"), "pile")
