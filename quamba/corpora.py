"""Texts for calibration and for perplexity: shipped, local or from the Hugging Face hub.

The shipped ones (Project Gutenberg, public domain in the USA) have no book in common: `builtin` calibrates, `gutenberg`
measures.
"""

import hashlib
import io
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import IO

from quamba.errors import DataError
from quamba.hub import hub_file

ASSETS_VARIABLE = "QLOG_ASSETS"
CALIBRATION_SOURCES = ("pile", "builtin")
PERPLEXITY_TEXTS = ("wikitext2", "wikitext2_joined", "gutenberg")
PASSAGE_CHARACTERS = 2400
PILE_REPOSITORY, PILE_FILE = "monology/pile-uncopyrighted", "val.jsonl.zst"
WIKITEXT_REPOSITORY, WIKITEXT_FILE = "Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet"


@dataclass(frozen=True, slots=True)
class CalibrationDocuments:
    """The documents that a model is calibrated with.

    Attributes:
        texts: in the order of their use.
        ids: each one's number in its source, from 0.
        source: "builtin", "pile" or the file's name.
        digest: "sha256:..." over the texts in this order.
        requested: how many were asked for; there may be fewer.
        seed: they were drawn with; None: the source's first ones.
    """

    texts: tuple[str, ...]
    ids: tuple[int, ...]
    source: str
    digest: str
    requested: int
    seed: int | None


def assets_folder() -> Path | None:
    """The folder with data that is not shipped: $QLOG_ASSETS, else ../shared; None where there is none."""
    folder = Path(os.environ.get(ASSETS_VARIABLE) or Path("..", "shared"))
    return folder if folder.is_dir() else None


def shipped(name: str) -> resources.abc.Traversable:
    """A file of the shipped book data."""
    return resources.files("quamba").joinpath("data", "gutenberg", name)


def calibration_documents(source: str, num: int, shuffle_seed: int | None = None) -> CalibrationDocuments:
    """`num` documents of `source`, fewer where it has not as many.

    Args:
        source: "builtin", "pile" (the validation file), or a .jsonl (an object with "text" a line; also .jsonl.zst) or
            .txt file (cut into passages at blank lines).
        num: documents wanted. Documents without any text are passed over.
        shuffle_seed: draw them from all of the source's with `random.Random(shuffle_seed).sample`; else its first ones.

    Raises:
        DataError: the source is unknown, cannot be read, or holds no document.
    """
    if num < 1:
        raise DataError(f"{num} calibration documents: at least 1 is needed")
    if shuffle_seed is None:
        chosen = list(islice(_numbered(source), num))
    else:
        # Two passes: the Pile's validation file is larger than what one wants in memory.
        available = [number for number, _ in _numbered(source)]
        drawn = random.Random(shuffle_seed).sample(available, min(num, len(available)))  # noqa: S311
        wanted = set(drawn)
        texts = {number: text for number, text in _numbered(source) if number in wanted}
        chosen = [(number, texts[number]) for number in drawn]
    if not chosen:
        raise DataError(f"no document with text in {source!r}")
    return CalibrationDocuments(
        texts=tuple(text for _, text in chosen),
        ids=tuple(number for number, _ in chosen),
        source=source if source in CALIBRATION_SOURCES else Path(source).name,
        digest=_digest(text for _, text in chosen),
        requested=num,
        seed=shuffle_seed,
    )


def perplexity_text(name: str) -> str:
    """The text that perplexity is measured on.

    Args:
        name: "wikitext2" (WikiText-2 raw, test: the file's text as it is), "wikitext2_joined" (its rows as the hub has
            them, joined with two newlines, as papers on quantization have it), "gutenberg" (shipped), or a text file.
            The two WikiText-2 texts differ in their blank lines alone, and in perplexity by about 1 %.

    Raises:
        DataError: there is no such text, or it cannot be read.
    """
    if name == "gutenberg":
        return shipped("heldout.txt").read_text(encoding="utf-8")
    if name == "wikitext2":
        # A blank line is " \n" in the file and an empty row on the hub.
        return "".join(row or " \n" for row in _wikitext_rows())
    if name == "wikitext2_joined":
        return "\n\n".join(_wikitext_rows())
    path = Path(name)
    if not path.is_file():
        raise DataError(f"perplexity data {name!r} is neither {', '.join(PERPLEXITY_TEXTS)} nor a text file")
    if path.suffix == ".jsonl":
        return "\n\n".join(text for _, text in _numbered(name))
    return _read_text(path)


def _numbered(source: str) -> Iterator[tuple[int, str]]:
    """Documents that have text, with their number in the source."""
    return ((number, text) for number, text in enumerate(_documents(source)) if text.strip())


def _documents(source: str) -> Iterator[str]:
    """All documents of a source."""
    if source == "builtin":
        with resources.as_file(shipped("calibration.jsonl")) as path:
            yield from _json_lines(path)
        return
    path = _hub_file(PILE_REPOSITORY, PILE_FILE) if source == "pile" else Path(source)
    if source != "pile" and not path.is_file():
        raise DataError(f"calibration data {source!r} is neither pile, builtin nor a .jsonl or .txt file")
    if path.suffix == ".jsonl" or path.suffixes[-2:] == [".jsonl", ".zst"]:
        yield from _json_lines(path)
    elif path.suffix == ".txt":
        yield from _passages(_read_text(path))
    else:
        raise DataError(f"calibration data {source!r} must end in .jsonl, .jsonl.zst or .txt")


def _json_lines(path: Path) -> Iterator[str]:
    """The "text" of each line; blank lines are passed over."""
    with _reading(path), _open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number}: no JSON: {error}") from error
            text = row.get("text") if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise DataError(f'{path} line {number}: no object with a string under "text"')
            yield text


def _open_binary(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed as they are read."""
    if path.suffix != ".zst":
        return path.open("rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


def _passages(text: str) -> Iterator[str]:
    """Paragraphs (blank lines between them) joined to passages of at least PASSAGE_CHARACTERS, the rest at the last."""
    passages: list[str] = []
    pending: list[str] = []
    for paragraph in _split_at_blank_lines(text):
        pending.append(paragraph)
        if sum(map(len, pending)) >= PASSAGE_CHARACTERS:
            passages.append("\n\n".join(pending))
            pending = []
    if pending:
        rest = "\n\n".join(pending)
        passages[-1:] = ["\n\n".join([*passages[-1:], rest])]
    yield from passages


def _split_at_blank_lines(text: str) -> Iterator[str]:
    """Runs of lines that are not blank."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _wikitext_rows() -> list[str]:
    """WikiText-2's rows as the hub's data set has them: lines with their newline, blank ones as ""."""
    assets = assets_folder()
    if assets is not None and (local := assets / "data" / "wikitext-2" / "wiki.test.raw").is_file():
        # A StringIO ends lines at "\n" alone; str.splitlines would at other characters of the text too.
        return [line if line.strip() else "" for line in io.StringIO(_read_text(local))]
    import pyarrow.parquet

    path = _hub_file(WIKITEXT_REPOSITORY, WIKITEXT_FILE)
    with _reading(path):
        return [str(row) for row in pyarrow.parquet.read_table(path, columns=["text"]).column("text").to_pylist()]


def _hub_file(repository: str, file: str) -> Path:
    """A data set's file from the Hugging Face hub, or its cache."""
    try:
        return hub_file(repository, file, kind="dataset")
    except OSError as error:
        raise DataError(f"{error}: give a local file") from error


def _read_text(path: Path) -> str:
    """A UTF-8 text file."""
    with _reading(path):
        return path.read_text(encoding="utf-8")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Failures to read `path` as DataError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _digest(texts: Iterator[str]) -> str:
    """SHA-256 over the texts' own digests, so that their boundaries count."""
    total = hashlib.sha256()
    for text in texts:
        total.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return "sha256:" + total.hexdigest()


__all__ = [
    "ASSETS_VARIABLE",
    "CALIBRATION_SOURCES",
    "PERPLEXITY_TEXTS",
    "CalibrationDocuments",
    "assets_folder",
    "calibration_documents",
    "perplexity_text",
    "shipped",
]
