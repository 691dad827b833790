"""The table in RESULTS.md, made of gpu_results.jsonl.

python -m tests.bench.gpu_report
"""

import json
from pathlib import Path
from typing import Any

from tests.bench.gpu_timing import RESULTS

REPORT = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def table(lines: list[dict[str, Any]]) -> str:
    """One table for each GPU and build, in the order of the file."""
    parts = []
    for facts in dict.fromkeys(_facts(line) for line in lines):
        rows = [line for line in lines if _facts(line) == facts]
        parts += [
            facts,
            "",
            "| case | ours, ms | baseline, ms | ratio | share of bandwidth | SQNR |",
            "|---|---|---|---|---|---|",
        ]
        parts += [
            f"| {row['case']} | {row['ours_ms']:.4g} | {row['baseline_ms']:.4g} | {row['ratio']:.2f} | "
            f"{_shown(row['bandwidth_share'], '.2f')} | {_quality(row['sqnr_db'])} |"
            for row in rows
        ]
        parts.append("")
    return "\n".join(parts)


def _facts(line: dict[str, Any]) -> str:
    return (
        f"{line['gpu']}, torch {line['torch']}, Triton {line['triton']}, copy bandwidth {line['copy_tb_s']} TB/s, "
        f"commit {line['commit']}:"
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _quality(value: float | None) -> str:
    return "" if value is None else "exact" if value >= 200 else f"{value:.0f} dB"


def main() -> None:
    """See the module."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    text = REPORT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    REPORT.write_text(f"{before}{BEGIN}\n\n{table(lines)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
