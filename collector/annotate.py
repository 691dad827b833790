"""What an AnnotateExperiment request changes, checked."""

from collections.abc import Callable

from qlog.v1 import collector_pb2

from collector import limits
from collector.annotations import Annotation
from collector.errors import InvalidRequestError

MAX_TAGS, MAX_TAG_CHARACTERS = 64, 100


def change_from_request(request: collector_pb2.AnnotateExperimentRequest) -> Callable[[Annotation], Annotation]:
    """What is said before -> what is said after.

    Raises:
        InvalidRequestError: names the field. The change raises it too, where there would be too many tags.
    """
    added, removed = list(dict.fromkeys(request.add_tags)), set(request.remove_tags)
    for field, tags, most in (("add_tags", added, MAX_TAGS), ("remove_tags", removed, 10 * MAX_TAGS)):
        if len(tags) > most:
            raise InvalidRequestError(field, f"{field} has {len(tags)} tags, at most {most}")
    for place, tag in enumerate(request.add_tags):
        _check_tag(tag, f"add_tags[{place}]")
        if tag in removed:
            raise InvalidRequestError(f"add_tags[{place}]", f"the tag {tag!r} is to be added and removed")
    if len(request.note.encode()) > limits.MAX_TEXT_BYTES:
        raise InvalidRequestError("note", f"note is longer than {limits.MAX_TEXT_BYTES} bytes")
    note = request.note if request.HasField("note") else None
    archived = request.archived if request.HasField("archived") else None

    def change(before: Annotation) -> Annotation:
        tags = tuple(tag for tag in dict.fromkeys((*before.tags, *added)) if tag not in removed)
        if len(tags) > MAX_TAGS:
            raise InvalidRequestError("add_tags", f"{len(tags)} tags: at most {MAX_TAGS} an experiment")
        return Annotation(
            tags, before.note if note is None else note, before.archived if archived is None else archived
        )

    return change


def _check_tag(tag: str, field: str) -> None:
    if not 0 < len(tag) <= MAX_TAG_CHARACTERS or tag != tag.strip() or not tag.isprintable():
        raise InvalidRequestError(
            field,
            f"{tag[:MAX_TAG_CHARACTERS]!r} is no tag: 1 to {MAX_TAG_CHARACTERS} printable characters, no blanks at "
            "its ends",
        )


__all__ = ["change_from_request"]
