"""The tables in RESULTS.md, made of gpu_results.jsonl: times, sizes, scores, a column for each GPU.

python -m tests.bench.gpu_report
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.gpu_timing import RESULTS

REPORT = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of result.

    Attributes:
        has: the field that only lines of this kind have a value in.
        columns: headings, and what stands below them.
    """

    has: str
    columns: tuple[tuple[str, Callable[[Line], str]], ...]


def number(field: str, form: str) -> Callable[[Line], str]:
    """A field as text, empty where a line has no value in it."""

    def shown(line: Line) -> str:
        value = line.get(field)
        return "" if value is None else format(value, form)

    return shown


def _quality(line: Line) -> str:
    value = line.get("sqnr_db")
    return "" if value is None else "exact" if value >= 200 else f"{value:.0f} dB"


TABLES = (
    Table(
        "ours_ms",
        (
            ("ours, ms", number("ours_ms", ".4g")),
            ("baseline, ms", number("baseline_ms", ".4g")),
            ("ratio", number("ratio", ".2f")),
            ("of bandwidth", number("bandwidth_share", ".2f")),
            ("of int8 rate", number("arithmetic_share", ".2f")),
            ("SQNR", _quality),
        ),
    ),
    Table(
        "ours_bytes",
        (
            ("ours, MB", lambda line: f"{line['ours_bytes'] / 1e6:.1f}"),
            ("float16, MB", lambda line: f"{line['baseline_bytes'] / 1e6:.1f}"),
            ("ratio", number("ratio", ".4f")),
            ("least", number("least_ratio", ".4f")),
        ),
    ),
    Table(
        "lambada_accuracy",
        (
            ("LAMBADA, %", lambda line: f"{100 * line['lambada_accuracy']:.2f}"),
            ("points off", number("lambada_points", "+.2f")),
            ("perplexity", number("lambada_perplexity", ".1f")),
            ("% off", number("lambada_percent", "+.3f")),
            ("passages, % right", lambda line: f"{100 * line['cloze_accuracy']:.2f}"),
            ("points off", number("cloze_points", "+.2f")),
            ("WikiText-2", number("wikitext2_perplexity", ".2f")),
            ("% off", number("wikitext2_percent", "+.3f")),
        ),
    ),
)


def tables(lines: Sequence[Line]) -> str:
    """What was measured where, then a table for each kind of result, rows and GPUs in the order of the file."""
    gpus = list(dict.fromkeys(line["gpu"] for line in lines))
    parts = [_facts(gpu, [line for line in lines if line["gpu"] == gpu]) for gpu in gpus]
    for kind in TABLES:
        chosen = [line for line in lines if line.get(kind.has) is not None]
        if chosen:
            parts += ["", _table(kind, chosen)]
    return "\n".join(parts) + "\n"


def _table(kind: Table, lines: Sequence[Line]) -> str:
    """Columns that no line has anything for are left out; each GPU has its own, by short names if several."""
    gpus = list(dict.fromkeys(line["gpu"] for line in lines))
    columns = [
        (gpu, heading, shown)
        for gpu in gpus
        for heading, shown in kind.columns
        if any(shown(line) for line in lines if line["gpu"] == gpu)
    ]
    headings = [heading if len(gpus) == 1 else f"{_short(gpu)}: {heading}" for gpu, heading, _ in columns]
    rows = [_row(["case", *headings]), "|" + "---|" * (len(columns) + 1)]
    found = {(line["case"], line["gpu"]): line for line in lines}
    for case in dict.fromkeys(line["case"] for line in lines):
        here = [(found.get((case, gpu)), shown) for gpu, _, shown in columns]
        rows.append(_row([case, *("" if line is None else shown(line) for line, shown in here)]))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _short(gpu: str) -> str:
    """ "H100" of "NVIDIA H100 80GB HBM3"."""
    return gpu.removeprefix("NVIDIA ").split()[0]


def _facts(gpu: str, lines: Sequence[Line]) -> str:
    """One line: the GPU, versions, measured rates, commits."""

    def named(field: str) -> str:
        return ", ".join(dict.fromkeys(str(line[field]) for line in lines if line.get(field) is not None))

    rate = named("int8_tops")
    arithmetic = f", int8 products of 8192 x 8192 x 8192 by cuBLAS {rate} TOP/s" if rate else ""
    return (
        f"{gpu}: torch {named('torch')}, Triton {named('triton')}, copy bandwidth {named('copy_tb_s')} TB/s"
        f"{arithmetic}, commit {named('commit')}."
    )


def main() -> None:
    """See the module."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    text = REPORT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    REPORT.write_text(f"{before}{BEGIN}\n\n{tables(lines)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
