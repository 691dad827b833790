"""Filters as plain Python: random ones, each with the function that says what it matches. Shares no code with SQL."""

import fnmatch
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

TENSORS = ("layer_0.x_proj:input", "layer_1.x_proj:input", "lm_head:input")
_COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Experiment:
    """One line of a log, read; `record` is empty for a corrupt one."""

    number: int
    record: dict[str, Any]
    tags: tuple[str, ...] = ()
    note: str = ""

    def value(self, path: tuple[str, ...]) -> Any:
        if path == ("number",):
            return self.number
        if path == ("tags",):
            return list(self.tags) or None
        if path == ("note",):
            return self.note or None
        if path == ("status",) and not self.record:
            return "CORRUPT"
        found: Any = self.record
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return plain(found)


Predicate = Callable[[Experiment], bool]
Filter = tuple[str, Predicate]


def plain(value: Any) -> Any:
    """A value with the numbers that JSON has no form for."""
    return (
        {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value)
        if isinstance(value, str)
        else value
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fold(text: str) -> str:
    """ASCII letters in lower case."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), text)


# --- values: as they are written, and what they equal, contain, order ---


@dataclass(frozen=True)
class Value:
    """A value in a filter."""

    text: str
    meaning: Any
    quoted: bool = False

    def equals(self, value: Any, *, within: bool) -> bool:
        if isinstance(value, list):
            return any(self.equals(plain(item), within=False) for item in value)
        if isinstance(value, dict):
            return within and any(self.equals(plain(key), within=False) or self._is(key) for key in value)
        if isinstance(value, bool) or value is None:
            return value is not None and self._word() == str(value).lower()
        if is_number(value):
            number = self._number()
            both_nan = math.isnan(value) and self._word() == "nan"
            return both_nan or (number is not None and value == number)
        if "*" in self._word():
            return re.fullmatch(fnmatch.translate(re.sub(r"([\[?])", r"[\1]", self._word())), fold(value)) is not None
        return self._word() in fold(value) if within else self._is(value)

    def _is(self, text: str) -> bool:
        return fold(text) == self._word()

    def _word(self) -> str:
        return fold(str(self.meaning))

    def _number(self) -> float | None:
        try:
            return float(self.meaning) if not re.search("nan|_", str(self.meaning), re.IGNORECASE) else None
        except ValueError:
            return None

    def compares(self, value: Any, sign: str) -> bool:
        number = self._number()
        if is_number(value):
            return number is not None and _COMPARED[sign](value, number)
        if isinstance(value, str) and (number is None or self.quoted):
            return _COMPARED[sign](fold(value).encode(), self._word().encode())
        return False


NUMBERS = st.sampled_from([0, 1, 4, 8, -3, 0.5, 1.0, -0.25, 1e300, 2**63, math.inf])
TEXTS = st.sampled_from(
    ["mamba-2m", "MAMBA2-4m", "模型 A", "a b", "x'y\"z", "4", "100%", "tag", "é", "", "true", "[a]?"]
)
JSON = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS.map(lambda n: "Infinity" if n == math.inf else n),
    TEXTS,
    st.sampled_from(["NaN", "-Infinity"]),
    st.lists(TEXTS | st.sampled_from([1, True, "NaN", None]), max_size=2),
    st.dictionaries(st.sampled_from(["tag", "K", "4"]), st.sampled_from([1, "a"]), max_size=2),
)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


VALUES = st.one_of(
    NUMBERS.filter(lambda n: n != 2**63).map(lambda n: Value("Infinity" if n == math.inf else repr(n), n)),
    TEXTS.map(lambda text: Value(quoted(text), text, quoted=True)),
    st.sampled_from(["mamba-2m", "TAG", "true", "false", "NaN", "4m"]).map(lambda text: Value(text, text)),
    st.sampled_from(["mamba*", "*4m", "*", "M*-*m", "*'*", "模*", "[a*"])
    .filter(lambda text: text != "*")
    .map(lambda text: Value(quoted(text), text, quoted=True)),
)

ANY_FIELDS = {
    "model": ("config", "model"),
    "config.free": ("config", "free"),
    "free": ("config", "free"),
    "command": ("command",),
    "config.deep": ("config", "deep"),
    "tags": ("tags",),
    "note": ("note",),
    '"dotted.name"': ("dotted.name",),
}
NUMBER_FIELDS = {
    "w_bits": ("config", "w_bits"),
    "accuracy": ("results", "accuracy"),
    "percentile_alpha": ("config", "percentile_alpha"),
    "number": ("number",),
    "duration_s": ("duration_s",),
    "results.perplexity": ("results", "perplexity"),
}


@st.composite
def restriction(draw: Any) -> Filter:
    """A field compared with a value."""
    name, path = draw(st.sampled_from([*ANY_FIELDS.items(), *NUMBER_FIELDS.items()]))
    space = draw(st.sampled_from(["", " "]))
    kind = draw(st.sampled_from(["equal", "equal", "order", "null", "present"]))
    if kind in ("null", "present"):
        sign, word = draw(st.sampled_from(["=", ":", "!="])), "null" if kind == "null" else "*"
        wanted = (kind == "null") is (sign != "!=")
        return f"{name}{space}{sign}{space}{word}", lambda e: (e.value(path) is None) is wanted
    value = draw(VALUES)
    if kind == "order":
        sign = draw(st.sampled_from(list(_COMPARED)))
        if "*" in str(value.meaning) or str(value.meaning) in ("true", "false") or path in NUMBER_FIELDS.values():
            value = Value("0.5", 0.5)
        return f"{name}{space}{sign}{space}{value.text}", lambda e: value.compares(e.value(path), sign)
    sign = draw(st.sampled_from(["=", ":", "!="]))
    if sign == "!=":
        return (
            f"{name}{space}!={space}{value.text}",
            lambda e: e.value(path) is not None and not value.equals(e.value(path), within=False),
        )
    return f"{name}{space}{sign}{space}{value.text}", lambda e: value.equals(e.value(path), within=sign == ":")


@st.composite
def word(draw: Any) -> Filter:
    """A text that stands anywhere."""
    text = draw(st.sampled_from(["mamba-2m", "MAMBA", "4m", "a", "a b", "模", "模型", "good", "run m", "zzz", "é"]))
    written = quoted(text) if " " in text or draw(st.booleans()) else text

    def holds(e: Experiment) -> bool:
        parts = [e.record.get("config", {}).get("model"), e.record.get("command"), *e.tags, e.note]
        return text.lower() in "\n".join(part for part in parts if isinstance(part, str)).lower()

    return written, holds


@st.composite
def any_layer(draw: Any) -> Filter:
    """Some tensor."""
    pattern = draw(st.sampled_from(["*", "*.x_proj:input", "lm_head:input", "layer_1*", "none"]))
    sign = draw(st.sampled_from(["=", "!=", *_COMPARED]))
    bound = draw(st.sampled_from([0, 0.5, -1, 1e-3]))

    def holds(e: Experiment) -> bool:
        for name, measured in e.record.get("activation_stats", {}).items():
            value = plain(measured.get("clipped_ratio"))
            if value is None or not re.fullmatch(pattern.replace(".", r"\.").replace("*", ".*"), name):
                continue
            if {"=": operator.eq, "!=": operator.ne, **_COMPARED}[sign](value, bound):
                return True
        return False

    return f'anyLayer("{pattern}", "clipped_ratio") {sign} {bound!r}', holds


def joined(parts: list[Filter], by: str) -> Filter:
    """AND and OR with the precedence of AIP-160: OR first."""
    tests = [test for _, test in parts]
    if by == "OR":
        return " OR ".join(text for text, _ in parts), lambda e: any(test(e) for test in tests)
    return by.join(text for text, _ in parts), lambda e: all(test(e) for test in tests)


def negated(part: Filter, sign: str) -> Filter:
    return f"{sign}{part[0]}", lambda e: not part[1](e)


def _larger(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    grouped = st.one_of(LEAVES, inner.map(lambda part: (f"({part[0]})", part[1])))
    signed = st.one_of(grouped, st.builds(negated, grouped, st.sampled_from(["NOT ", "-"])))
    either = st.lists(signed, min_size=1, max_size=3).map(lambda parts: joined(parts, "OR"))
    return st.builds(joined, st.lists(either, min_size=1, max_size=3), st.sampled_from([" AND ", " "]))


LEAVES = st.one_of(restriction(), restriction(), word(), any_layer())
FILTERS = st.recursive(LEAVES, _larger, max_leaves=5)


@st.composite
def experiments(draw: Any) -> Experiment:
    """A record with whatever a log may hold; keys are missing now and then."""
    if draw(st.integers(0, 11)) == 0:
        return Experiment(0, {})

    def some(values: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
        return {key: draw(value) for key, value in values.items() if draw(st.integers(0, 4))}

    ratio = st.sampled_from([0, 0.5, 1e-3, -1, None, "NaN", "Infinity"])
    record = some(
        {
            "command": TEXTS.map(lambda text: f"run {text}"),
            "config": st.just(
                some(
                    {
                        "model": TEXTS,
                        "w_bits": NUMBERS.filter(math.isfinite),
                        "percentile_alpha": JSON,
                        "free": JSON,
                        "deep": JSON,
                    }
                )
            ),
            "activation_stats": st.just(
                {name: {"clipped_ratio": draw(ratio)} for name in TENSORS if draw(st.booleans())}
            ),
            "results": st.just(some({"accuracy": JSON, "perplexity": JSON})),
            "duration_s": JSON,
            "dotted.name": JSON,
        }
    ) | {"schema_version": 1}
    return Experiment(
        0,
        record,
        tuple(draw(st.lists(st.sampled_from(["tag", "good one", "模"]), max_size=2, unique=True))),
        draw(st.sampled_from(["", "", "a good note", "TAG"])),
    )
