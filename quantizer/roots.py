"""Where the jobs of others may read and write: below two directories, and through no link that leads out of them.

What a job names is resolved when it is submitted, and looked at again when it begins: links may have changed meanwhile.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantizer.config import RunConfig


class OutsideError(Exception):
    """A path that leads out of its root, or to what is no file; the message is a line for users, without the field."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Both resolved. `output` None: jobs write nothing."""

    models: Path
    output: Path | None = None

    @classmethod
    def of(cls, models: Path, output: Path | None) -> "Roots":
        """The roots that directories stand for now."""
        return cls(models.resolve(), None if output is None else output.resolve())

    def check(self, config: RunConfig) -> None:
        """That the paths of a job are still what they were when it was examined.

        Raises:
            OutsideError: one of them leads elsewhere now.
        """
        model = Path(config.model_path)
        if model.is_absolute():  # Else the hub sends it.
            _unmoved(model, self.models)
            check_entries(model, self.models)
        for path in map(Path, (config.calib_path, *config.ppl_paths)):
            if path.is_absolute():  # Else it is the name of data that come with the program.
                _unmoved(path, self.models)
        if config.artifacts:
            if self.output is None:
                raise OutsideError("there is no output root")
            _unmoved(Path(config.artifacts), self.output)
            check_entries(Path(config.artifacts), self.output)


def below(root: Path, name: str) -> Path:
    """The path that a name means, resolved.

    Args:
        root: resolved.
        name: a path, relative to the root or not; whoever sent it may mean harm.

    Raises:
        OutsideError: it leads out of the root, through symbolic links too, or can be no path at all.
    """
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, ValueError):  # Too long, a loop of links, a NUL.
        path = Path("/")
    if not path.is_relative_to(root):
        raise OutsideError(f"is not below {root}: give a path inside it")
    return path


def check_entries(directory: Path, root: Path) -> None:
    """That what stands in a directory is files and directories inside the root, so that all of it may be read.

    Raises:
        OutsideError: a link leads out of the root, or something is neither: reading it could wait for ever.
    """
    for entry in _entries(directory):
        try:
            target = Path(entry.path).resolve()
            mode = target.stat().st_mode
        except (OSError, RuntimeError):
            continue  # A link to nothing is not there for those who read either.
        if not target.is_relative_to(root):
            raise OutsideError(f"holds {entry.name!r}, which leads out of {root}: put the file itself there")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OutsideError(f"holds {entry.name!r}, which is neither a file nor a directory")


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            yield from found
    except OSError:
        return  # What is no directory is found out, and told, by those who read it.


def _unmoved(path: Path, root: Path) -> None:
    try:
        moved = path.resolve() != path
    except (OSError, RuntimeError):
        moved = True
    if moved or not path.is_relative_to(root):
        raise OutsideError(f"{path} leads elsewhere than when the job was submitted: submit it again")


__all__ = ["OutsideError", "Roots", "below", "check_entries"]
