"""Logs of any size for benchmarks: experiments that differ in what lists ask for, on tensors that repeat."""

import random
from pathlib import Path

import orjson
from qlog.v1 import common_pb2 as pb

from collector.lines import encode_line
from collector.store import LOG_NAME
from collector.wire import record_from_experiment
from tests.bench.test_collector_speed import full_stats, names

MODELS = ("mamba-130m", "mamba-370m", "mamba2-130m", "mamba2-2.7b")


def write_log(log_dir: Path, lines: int, tensors: int) -> Path:
    """A log of so many lines, each with so many tensors; the same for the same numbers."""
    chance = random.Random(lines)
    config = pb.ExperimentConfig(model="mamba-370m", w_bits=8, a_bits=8)
    experiment = pb.Experiment(
        timestamp="2026-11-05 15:30:00",
        command="quantizer run mamba-370m --quantize --w_bits 8 --calib_data_num 512",
        config=config,
        layer_stats=[full_stats(name) for name in names()[:tensors]],
        results=pb.Results(accuracy=0.5, perplexity=9.0),
        status=pb.EXPERIMENT_STATUS_COMPLETED,
        schema_version=1,
    )
    record = record_from_experiment(experiment, events=tensors + 3)
    for place in range(20):
        record["config"][f"option_{place}"] = place
        record["environment"][f"package_{place}"] = f"1.{place}.0"
    log_dir.mkdir(parents=True, exist_ok=True)
    log = log_dir / LOG_NAME
    with log.open("wb", buffering=1 << 20) as file:
        for number in range(lines):
            model = MODELS[number % len(MODELS)]
            record["experiment_id"] = f"{number:08x}-0000-7000-8000-{chance.getrandbits(48):012x}"
            record["command"] = f"quantizer run {model} --quantize --w_bits {4 + number % 2 * 4} --seed {number}"
            record["config"]["model"] = model
            record["config"]["w_bits"] = 4 + number % 2 * 4
            record["results"]["accuracy"] = chance.random()
            record["results"]["perplexity"] = 5 + 10 * chance.random()
            file.write(encode_line(record))
    return log


def parse_all(log: Path) -> int:
    """What orjson alone does with the lines, in one thread; how many there are."""
    count = 0
    with log.open("rb") as file:
        for line in file:
            orjson.loads(line)
            count += 1
    return count


__all__ = ["MODELS", "parse_all", "write_log"]
