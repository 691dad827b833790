"""The models below a directory."""

import os
from dataclasses import dataclass
from pathlib import Path

from quantizer.roots import OutsideError, check_entries

MOST_DIRECTORIES = 5000
MOST_DEPTH = 4


@dataclass(frozen=True, slots=True)
class ListedModel:
    """`name`: its path below the root, as a job may give it."""

    name: str
    family: str
    size_bytes: int


def list_models(root: Path) -> list[ListedModel]:
    """Directories with a configuration that is understood and weights; those that no job could use are left out.

    Args:
        root: resolved.
    """
    from quamba.errors import ModelError
    from quamba.models.config import read_config
    from quamba.models.weights import find_weight_files

    found = []
    # Links to directories are not followed: what they lead to may be outside.
    for visited, (directory, below, files) in enumerate(os.walk(root)):
        path = Path(directory)
        if visited >= MOST_DIRECTORIES:
            break
        depth = len(path.relative_to(root).parts)
        below[:] = sorted(name for name in below if not name.startswith(".")) if depth < MOST_DEPTH else []
        if "config.json" not in files:
            continue
        try:
            check_entries(path, root)
            family = read_config(path).family
            size = sum(file.stat().st_size for file in find_weight_files(path))
        except (ModelError, OutsideError, OSError):
            continue
        found.append(ListedModel(path.relative_to(root).as_posix(), family, size))
    return found


__all__ = ["ListedModel", "list_models"]
