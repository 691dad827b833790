"""What people say of an experiment after it has ended: tags, a note, an archive mark."""

from dataclasses import dataclass


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


__all__ = ["Annotation"]
