"""The names that a filter can use: which field of an experiment each one means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from collector.filters.syntax import Span, wrong
from collector.index_values import HOT

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of experiments.

    Attributes:
        name: as it is shown.
        column: of the index's table of lines; empty for what has none.
        paths: into the record, where it has no column; several where names with dots make the same text.
    """

    name: str
    column: str = ""
    paths: tuple[Keys, ...] = ()


class Catalogue(Protocol):
    """The names that the recorded experiments have."""

    def paths(self) -> Mapping[str, Sequence[Keys]]:
        """The paths of their records, by the text that they make when joined by dots; the same object for the same."""

    def statistics(self) -> Iterable[str]:
        """The statistics of their tensors, dotted."""


_SPECIAL = {
    "number": Field("number", "number"),
    "experiment_id": Field("experiment_id", "experiment_id"),
    "tags": Field("tags", "tags"),
    "note": Field("note", "note"),
    "archived": Field("archived", "archived"),
    "start_time": Field("start_time", "instant"),
    "error": Field("error", "error"),
    **{path: Field(path, column) for path, column in HOT.items()},
}
# Other names of the same, the columns of `qlog list` among them.
_ALIASES = {
    "id": "experiment_id",
    "time": "timestamp",
    "model": "config.model",
    "alpha": "config.percentile_alpha",
    "grouping": "config.group_heads",
    "gptq": "config.apply_gptq",
    "accuracy": "results.accuracy",
    "perplexity": "results.perplexity",
    "duration": "duration_s",
    "tag": "tags",
    "notes": "note",
}
# Of records that have no others; known before there are any.
_FIXED = (
    "command",
    "config.quantize_embedding",
    "config.quantize_lm_head",
    "config.calib_data_num",
    "config.calib_seqlen",
    "reorder_summary.enabled",
    "reorder_summary.avg_range_reduction",
    "reorder_summary.total_layers",
)
_SHOWN = 3


def resolve(name: str, catalogue: Catalogue, text: str, span: Span) -> Field:
    """The field that a name means.

    Raises:
        FilterError: there is none, or there are several.
    """
    known = _known(catalogue)
    for in_any_case in (False, True):
        if found := _find(name, known, in_any_case=in_any_case):
            if len(found) > 1:
                shown = ", ".join(sorted(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
                raise wrong(f"{name} is ambiguous: write one of {shown}", text, span)
            return known[found[0]]
    inner = [path for path in known if path.startswith(f"{name}.")]
    if inner:
        outer = {_outer(keys, name) for path in inner for keys in known[path].paths or (tuple(path.split(".")),)}
        return Field(name, paths=tuple(sorted(outer)))
    raise wrong(f"no experiment has a field {name!r}: {_proposals(name, known)}", text, span)


_latest: tuple[object, Mapping[str, Field]] = (None, {})


def _known(catalogue: Catalogue) -> Mapping[str, Field]:
    """All fields by their names; made once for the same names."""
    global _latest
    paths = catalogue.paths()
    made_of, known = _latest
    if made_of is not paths:
        there = {joined: Field(joined, paths=tuple(keys)) for joined, keys in paths.items()}
        fixed = {joined: Field(joined, paths=(tuple(joined.split(".")),)) for joined in _FIXED}
        known = {**fixed, **there, **_SPECIAL}
        _latest = (paths, known)
    return known


def _find(name: str, known: Mapping[str, Field], *, in_any_case: bool) -> list[str]:
    if not in_any_case:
        if name in known:
            return [name]
        if name in _ALIASES:
            return [_ALIASES[name]]
    same = str.lower if in_any_case else str
    name, tail = same(name), f".{same(name)}"
    if in_any_case:
        if exact := [path for path in known if same(path) == name]:
            return exact[:1]
        if alias := [path for other, path in _ALIASES.items() if same(other) == name]:
            return alias[:1]
    inside = [path for path in known if same(path).endswith(tail)]
    # What every record has is meant before what some have besides.
    fixed = [path for path in inside if path in _SPECIAL or path in _FIXED]
    return fixed if len(fixed) == 1 else inside


def _outer(keys: Keys, name: str) -> Keys:
    """The keys that make `name`, of a longer path."""
    for count in range(1, len(keys)):
        if ".".join(keys[:count]) == name:
            return keys[:count]
    return tuple(name.split("."))


def _proposals(name: str, known: Mapping[str, Field]) -> str:
    short = {path.rpartition(".")[2]: path for path in sorted(known, reverse=True)}
    names = {**short, **{path: path for path in known}, **{alias: alias for alias in _ALIASES}}
    lowered = {candidate.lower(): path for candidate, path in names.items()}
    close = get_close_matches(name.lower(), lowered, n=_SHOWN, cutoff=0.6)
    close += get_close_matches(name.lower().rpartition(".")[2], lowered, n=_SHOWN, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(dict.fromkeys(lowered[item] for item in close[:_SHOWN]))}?"
    roots = sorted({path.split(".")[0] + (".*" if "." in path else "") for path in known})
    return f"there are {', '.join(roots)}"


def resolve_statistic(name: str, catalogue: Catalogue, text: str, span: Span) -> str:
    """The statistic of tensors that a name means, as a dotted path.

    Raises:
        FilterError: there is none, or there are several.
    """
    known = list(catalogue.statistics())
    if name in known:
        return name
    inside = [path for path in known if path.endswith(f".{name}")]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise wrong(f"{name} is ambiguous: write one of {', '.join(sorted(inside)[:_SHOWN])}", text, span)
    close = get_close_matches(name, known, n=_SHOWN, cutoff=0.6)
    there = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
    raise wrong(f"no tensor has a statistic {name!r}: {there}", text, span)


__all__ = ["Catalogue", "Field", "Keys", "resolve", "resolve_statistic"]
