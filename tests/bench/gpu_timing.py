"""What the benchmarks on a GPU share: medians by CUDA events, the bandwidth of a copy, results as lines."""

import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "gpu_results.jsonl"
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


def sqnr_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.double().square().sum() / (found - expected).double().square().sum()))


def facts(bandwidth: float) -> dict[str, Any]:
    """What results depend on beside the code."""
    import triton

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_tb_s": round(bandwidth / 1e12, 2),
        "commit": commit.stdout.strip(),
    }


def keep(path: Path, results: list[dict[str, Any]], common: dict[str, Any]) -> None:
    """Put results in the place of older ones of the same case and GPU, and the rest after those that stay."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    fresh = {(result["case"], common["gpu"]) for result in results}
    lines = [line for line in lines if (line["case"], line["gpu"]) not in fresh]
    lines += [result | common for result in results]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


__all__ = ["REPEATS", "RESULTS", "copy_bandwidth", "facts", "graph_of", "keep", "median_ms", "sqnr_db"]
