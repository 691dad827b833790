"""What people say of an experiment after it has ended: tags, a note, an archive mark."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from client.values import Experiment


@dataclass(frozen=True, slots=True)
class Annotation:
    """A change of what is said of an experiment.

    Attributes:
        add_tags: tags that it has afterwards.
        remove_tags: tags that it has not.
        note: in place of the one before; empty: none; None: as it is.
        archived: whether it is put away; None: as it is.
    """

    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    note: str | None = None
    archived: bool | None = None

    @property
    def empty(self) -> bool:
        """It changes nothing."""
        return not self.add_tags and not self.remove_tags and self.note is None and self.archived is None


def annotations_of(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    """What is said of an experiment, by name; nothing where nothing is."""
    if experiment.tags:
        yield "tags", list(experiment.tags)
    if experiment.note:
        yield "note", experiment.note
    if experiment.archived:
        yield "archived", True
    if experiment.amended:
        yield "amended", True


__all__ = ["Annotation", "annotations_of"]
