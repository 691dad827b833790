"""What the benchmarks on a GPU share: medians by CUDA events, the rates that a share is of, results as lines.

The commit is that of the environment variable QLOG_BENCH_COMMIT, where a copy without git is measured, else git's, with
"-dirty" where files are changed, else "unknown".
"""

import json
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "gpu_results.jsonl"
COMMIT_VARIABLE = "QLOG_BENCH_COMMIT"
REPEATS = 50


def median_ms(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    for _ in range(5):
        run()
    events = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        events.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def graph_of(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """The launches of a call as a graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 2 GB."""
    source = torch.randint(0, 255, (1 << 31,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * len(source) / (median_ms(lambda: target.copy_(source), 30) / 1e3)


def int8_rate() -> float:
    """Operations a second, two for each product, of 8192 x 8192 x 8192 in 8-bit integers by cuBLAS."""
    a, b = (torch.randint(-128, 128, (8192, 8192), dtype=torch.int8, device="cuda") for _ in range(2))
    return 2 * 8192**3 / (median_ms(lambda: torch._int_mm(a, b.t()), 30) / 1e3)


def sqnr_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.double().square().sum() / (found - expected).double().square().sum()))


def commit() -> str:
    """Of the code that is measured; see the module."""
    if given := os.environ.get(COMMIT_VARIABLE):
        return given
    # What benchmarks write themselves is no change of the code.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS}")
    named = _git("rev-parse", "--short", "HEAD")
    return (named + ("-dirty" if changes else "")) or "unknown"


def _git(*arguments: str) -> str:
    """What git says, empty where it says nothing or is not there."""
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return found.stdout.strip()


def facts(bandwidth: float, arithmetic: float | None = None) -> dict[str, Any]:
    """What results depend on beside the code.

    Args:
        bandwidth: bytes a second.
        arithmetic: 8-bit operations a second, where they were measured.
    """
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_tb_s": round(bandwidth / 1e12, 2),
        "int8_tops": None if arithmetic is None else round(arithmetic / 1e12),
        "commit": commit(),
    }


def keep(path: Path, results: list[dict[str, Any]], common: dict[str, Any]) -> None:
    """Put results in the place of older ones of the same case and GPU, and the rest after those that stay."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    fresh = {(result["case"], common["gpu"]) for result in results}
    lines = [line for line in lines if (line["case"], line["gpu"]) not in fresh]
    lines += [result | common for result in results]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


__all__ = [
    "COMMIT_VARIABLE",
    "REPEATS",
    "RESULTS",
    "commit",
    "copy_bandwidth",
    "facts",
    "graph_of",
    "int8_rate",
    "keep",
    "median_ms",
    "sqnr_db",
]
