"""`quantizer spool`: what waits to be sent, and sending it now."""

import time
from functools import partial
from pathlib import Path

from qlog.v1.command_line import counted
from qlog.v1.credentials import Credentials

from quantizer.embedded import LocalEndpoint
from quantizer.endpoints import Endpoint, FixedEndpoint, endpoint_of
from quantizer.errors import DeliveryError, QuantizerError
from quantizer.rpc import CollectorSession
from quantizer.sender import Sender
from quantizer.spool import Spool

FLUSH_AWAY_S = 5.0
FLUSH_TOTAL_S = 3600.0


def describe_spool(log_dir: Path) -> str:
    """A table of the experiments in the spool.

    Raises:
        QuantizerError: it cannot be read.
    """
    if not (log_dir / "spool" / "spool.sqlite").exists():
        return f"nothing waits in {log_dir / 'spool'}"
    spool = _open(log_dir)
    try:
        adopted = {row.id for row in spool.adopt()}
        rows = spool.experiments()
    finally:
        spool.close()
    if not rows:
        return f"nothing waits in {log_dir / 'spool'}"
    lines = [f"{'experiment':<36}  {'begun':<19}  {'state':<10}  {'events':>7}  {'unsent':>7}  {'bytes':>10}  for"]
    for row in rows:
        state = "running" if row.id not in adopted else "ended" if row.ended else "broken off"
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.created))
        lines.append(
            f"{row.id:<36}  {begun}  {state:<10}  {row.next_offset:>7}  {row.pending:>7}  {row.bytes:>10}  {row.target}"
        )
    return "\n".join(lines)


def flush_spool(log_dir: Path, collector: str | None, credentials: Credentials | None = None) -> str:
    """Send everything that no living process sends itself; what was done, in a line.

    Args:
        log_dir: the spool's.
        collector: HOST:PORT for all of it; None: each experiment's own.
        credentials: to connect with.

    Raises:
        DeliveryError: something could not be sent; it stays in the spool.
        QuantizerError: the spool cannot be read.
    """
    if not (log_dir / "spool" / "spool.sqlite").exists():
        return f"nothing waits in {log_dir / 'spool'}"
    spool = _open(log_dir)
    try:
        targets = dict.fromkeys(row.target for row in spool.adopt())
        running = len(spool.experiments()) - len(spool.held())
        sent = 0
        for target in [None] if collector and targets else targets:
            endpoint: Endpoint = (
                FixedEndpoint(collector, credentials)
                if collector
                else endpoint_of(str(target), lambda: LocalEndpoint(log_dir), credentials)
            )
            sent += _send(spool, endpoint, target)
    finally:
        spool.close()
    told = [f"sent {counted(sent, 'experiment')}"] if sent else []
    if running:
        verbs = "runs and is sent by its own process" if running == 1 else "run and are sent by their own processes"
        told.append(f"{counted(running, 'experiment')} still {verbs}")
    return "; ".join(told) or f"nothing waits in {log_dir / 'spool'}"


def _open(log_dir: Path) -> Spool:
    def refuse(message: str) -> None:
        raise QuantizerError(message)

    return Spool(log_dir / "spool", on_trouble=refuse)


def _send(spool: Spool, endpoint: Endpoint, target: str | None) -> int:
    delivered: list[str] = []
    sender = Sender(
        spool,
        endpoint,
        target=target,
        connect=partial(CollectorSession, credentials=endpoint.credentials),
        on_trouble=lambda _reason: None,  # It is told below, once.
        on_delivered=lambda experiment_id, _number: delivered.append(experiment_id),
    )
    sender.start()
    try:
        complete = sender.drain(until=time.monotonic() + FLUSH_TOTAL_S, away_s=FLUSH_AWAY_S, keep_trying=3)
        refused, reason = sender.refused, sender.reason
    finally:
        sender.close()
    if not complete:
        raise DeliveryError(
            f"{endpoint.name} cannot be reached ({reason or 'no answer in time'}): what waits stays in "
            f"{spool.directory}; start the collector, or name another with --collector"
        )
    if refused:
        experiment_id, why = next(iter(refused.items()))
        others = f" (and {counted(len(refused) - 1, 'experiment')} more)" if len(refused) > 1 else ""
        raise DeliveryError(f"{endpoint.name} refuses experiment {experiment_id}{others}: {why}")
    return len(delivered)


__all__ = ["describe_spool", "flush_spool"]
