"""MLflow's side of `test_mlflow`: runs in MLflow's own environment, prints what it measured as one line of JSON.

    python mlflow_side.py URI VALUES.json SECONDS

VALUES.json holds `params` and `metrics` of one experiment. About a third of SECONDS goes into runs logged call by call
and in batches, the rest fills the store for the searches.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

FILTER = "params.w_bits = '4' and metrics.accuracy > 0.5"
_CLIENTS = 8


class Side:
    """One experiment's values, and ways to log them."""

    def __init__(self, uri: str, values: dict[str, dict[str, object]]) -> None:
        self.client = MlflowClient(tracking_uri=uri)
        self.experiment_id = self.client.create_experiment("bench")
        self.params = {name: str(value) for name, value in values["params"].items()}
        self.metrics = {name: float(str(value)) for name, value in values["metrics"].items()}
        self.runs = 0

    def call_by_call(self) -> None:
        """A run, a call for each value."""
        run_id = self.client.create_run(self.experiment_id).info.run_id
        for name, text in self._params().items():
            self.client.log_param(run_id, name, text)
        for name, value in self.metrics.items():
            self.client.log_metric(run_id, name, value)
        self.client.set_terminated(run_id)

    def batched(self) -> None:
        """A run, all values in one `log_batch`: what MLflow's documentation advises."""
        run_id = self.client.create_run(self.experiment_id).info.run_id
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in self.metrics.items()]
        params = [Param(name, text) for name, text in self._params().items()]
        self.client.log_batch(run_id, metrics=metrics, params=params)
        self.client.set_terminated(run_id)

    def _params(self) -> dict[str, str]:
        self.runs += 1
        return {**self.params, "w_bits": "48"[self.runs % 2]}

    def search(self, filter_string: str = "") -> int:
        """The last five that match; how many came."""
        order = ["attributes.start_time DESC"]
        return len(self.client.search_runs([self.experiment_id], filter_string, max_results=5, order_by=order))


def seconds_each(run: Callable[[], object], budget_s: float, clients: int = 1) -> tuple[float, int]:
    """Seconds a call, and how many there were in so many seconds by so many clients at once."""
    start = time.perf_counter()

    def one(_place: int) -> int:
        count = 0
        while not count or time.perf_counter() - start < budget_s:
            run()
            count += 1
        return count

    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(one, range(clients)))
    return (time.perf_counter() - start) / done, done


def median_s(run: Callable[[], object], rounds: int = 15) -> float:
    """The median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, and print it."""
    uri, values, seconds = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), float(sys.argv[3])
    side = Side(uri, values)
    side.batched()  # The first call pays for connections.
    found: dict[str, object] = {}
    found["call by call"], _ = seconds_each(side.call_by_call, seconds / 6)
    found["log_batch"], _ = seconds_each(side.batched, seconds / 6)
    found[f"log_batch, {_CLIENTS} clients"], _ = seconds_each(side.batched, seconds * 2 / 3, _CLIENTS)
    found["search, last 5"] = median_s(side.search)
    assert side.search(FILTER) == 5
    found["search, typed filter"] = median_s(lambda: side.search(FILTER))
    found["runs"], found["experiment_id"] = side.runs, side.experiment_id
    print(json.dumps(found))


if __name__ == "__main__":
    main()
