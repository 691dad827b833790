"""Documents of the tasks in `tasks/`, which need no download; their YAML files name these functions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quamba.corpora import ASSETS_VARIABLE, assets_folder, shipped
from quamba.errors import TaskError

Document = Mapping[str, Any]


def gutenberg_cloze(**_: object) -> dict[str, Any]:
    """The shipped passages of books, as lm-eval's `custom_dataset` has them: {"test": Dataset}."""
    return _as_data_set(shipped("cloze.jsonl").read_text(encoding="utf-8"))


def lambada_local(**_: object) -> dict[str, Any]:
    """LAMBADA's test passages from the assets folder.

    Raises:
        TaskError: they are not there.
    """
    return _as_data_set(lambada_file().read_text(encoding="utf-8"))


def lambada_file() -> Path:
    """LAMBADA's test file.

    Raises:
        TaskError: it is not there.
    """
    assets = assets_folder()
    path = (assets or Path("..", "shared")) / "data" / "lambada" / "lambada_test.jsonl"
    if not path.is_file():
        raise TaskError(f"task 'lambada_local' reads {path}, which is not there: set {ASSETS_VARIABLE} to its folder")
    return path


def check_data(task: str) -> None:
    """Raise TaskError where a local task's data is missing."""
    if task == "lambada_local":
        lambada_file()


def passage(document: Document) -> str:
    """Everything before the last word, as lm-eval's LAMBADA has it."""
    return str(document["text"]).rpartition(" ")[0]


def last_word(document: Document) -> str:
    """The last word with the space before it."""
    return " " + str(document["text"]).rpartition(" ")[2]


def _as_data_set(json_lines: str) -> dict[str, Any]:
    """A data set in memory: nothing is written to a cache."""
    import datasets

    return {"test": datasets.Dataset.from_list([json.loads(line) for line in json_lines.split("\n") if line.strip()])}


__all__ = ["check_data", "gutenberg_cloze", "lambada_file", "lambada_local", "last_word", "passage"]
