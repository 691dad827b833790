"""What people say of an experiment after it ended: tags, a note, an archive mark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Annotation:
    """All that is said of one experiment.

    Attributes:
        tags: in the order in which they were added, each once.
        note: free text.
        archived: out of the way, not deleted.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False


NOTHING_SAID = Annotation()

__all__ = ["NOTHING_SAID", "Annotation"]
