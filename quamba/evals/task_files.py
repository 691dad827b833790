"""Where a task is defined, found without loading lm-eval or building its index of some 14,000 tasks (10 seconds)."""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from quamba.errors import TaskError
from quamba.evals.local_tasks import check_data

LOCAL_TASKS = Path(__file__).parent / "tasks"
_NAME = re.compile(rb"""^["']?(?:task|group)["']?[ \t]*:[ \t]*["']?([\w.+-]+)["']?[ \t]*\r?$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A file that names a task.

    `kind` is "task" where the file alone defines it, "collection" for groups and tags, which need lm-eval's index.
    """

    path: Path
    kind: Literal["task", "collection"]


def check_tasks(names: Sequence[str]) -> None:
    """Raise TaskError unless each name is a shipped task, or one of lm-eval's tasks, groups or tags.

    Nothing is downloaded and no task is built; of the local tasks the data has to be there.

    Raises:
        TaskError: a name is unknown (the message has close ones), or a local task's data is missing.
    """
    if not names:
        raise TaskError("no task: name at least one, such as gutenberg_cloze")
    for name in names:
        find_task(name)
        check_data(name)


@cache
def find_task(name: str) -> TaskFile:
    """The file that defines a task; shipped ones first.

    Raises:
        TaskError: there is none.
    """
    if (local := LOCAL_TASKS / f"{name}.yaml") in _yaml_files(LOCAL_TASKS):
        return TaskFile(local, "task")
    # Most files are called as their task; the rest is found by reading them all (a fraction of a second).
    stem_first = sorted(_lm_eval_files(), key=lambda path: path.stem != name)
    mentioned = re.compile(rb"(?<![\w.+-])%s(?![\w.+-])" % re.escape(name).encode())
    for path in stem_first if name.strip() else ():
        kind = _kind(_definition(path), name) if mentioned.search(path.read_bytes()) else None
        # What other files include (it has no suffix) defines no task itself, but may tag theirs.
        if kind == "collection" or (kind == "task" and path.suffix):
            return TaskFile(path, kind)
    near = get_close_matches(name, sorted(_known_names()), n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else "gutenberg_cloze is one that needs no download"
    raise TaskError(f"unknown task {name!r}: {hint}")


def _kind(definition: Mapping[str, Any], name: str) -> Literal["task", "collection"] | None:
    """What `name` is in this definition; None: something else is defined there."""
    if definition.get("group") == name and "class" not in definition:
        return "collection"
    if definition.get("task") == name:
        return "task"
    tags = definition.get("tag") or ()
    return "collection" if name in ([tags] if isinstance(tags, str) else tags) else None


def _definition(path: Path) -> Mapping[str, Any]:
    """A task file's content with functions left unread; empty where it is no mapping."""
    yaml: Any = importlib.import_module("yaml")
    loader: Any = type("NamesLoader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)
    try:
        content = yaml.load(path.read_bytes(), Loader=loader)
    except yaml.YAMLError:
        return {}  # lm-eval passes over such files too
    return content if isinstance(content, dict) else {}


@cache
def _lm_eval_files() -> tuple[Path, ...]:
    """lm-eval's task files, in the order in which it reads them, then what they include."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or package.origin is None:
        raise TaskError("evaluation needs the lm-eval package: pip install 'qlog-ssm[quantizer]'")
    root = Path(package.origin).parent / "tasks"
    included = (path for path in root.glob("**/*") if not path.suffix and path.is_file())
    return (*_yaml_files(root), *sorted(included))


@cache
def _yaml_files(root: Path) -> tuple[Path, ...]:
    """All task files below a folder, sorted."""
    return tuple(sorted(root.glob("**/*.yaml"), key=lambda path: path.as_posix()))


def _known_names() -> Iterator[str]:
    """Names of tasks and groups, to suggest."""
    yield from (path.stem for path in _yaml_files(LOCAL_TASKS))
    for path in _lm_eval_files():
        yield from (match.decode() for match in _NAME.findall(path.read_bytes()))


__all__ = ["LOCAL_TASKS", "TaskFile", "check_tasks", "find_task"]
