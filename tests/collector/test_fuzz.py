"""Whatever bytes arrive, and whatever the files have become: never a crash, never INTERNAL, and the rest is served."""

import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import message_factory
from qlog.v1 import collector_pb2 as wire

from collector.lines import LineError, decode_line
from collector.names import INDEX_NAME, INFLIGHT_NAME, LOG_NAME, META_NAME
from tests.collector.builders import batch, begin, new_id, opened, record, serving, stats, submit, whole

_SERVICE = wire.DESCRIPTOR.services_by_name["CollectorService"]
_NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def seeds(experiment_id: str) -> dict[str, bytes]:
    """A request of each call that is as it should be."""
    requests = (
        wire.AppendExperimentRequest(experiment_id=new_id(), events=whole(tensors=5)),
        wire.GetAppendStatusRequest(experiment_id=experiment_id),
        wire.ListExperimentsRequest(filter="model: 2m AND config.w_bits = 8", order_by="number desc", page_size=3),
        wire.GetExperimentRequest(ref="0"),
        wire.BatchGetExperimentsRequest(refs=["0", "-1", experiment_id[:13]]),
        wire.CompareExperimentsRequest(refs=["0", "1"]),
        wire.WatchExperimentsRequest(experiment_id=experiment_id),
        wire.ExportExperimentsRequest(filter="w_bits = 8", as_shown=True),
        wire.ImportExperimentsRequest(chunk=b'{"timestamp": "2025-11-05 15:30:00", "config": {"w_bits": 8}}\n'),
        wire.AnnotateExperimentRequest(ref="0", add_tags=["a"], note="why"),
        wire.GetStoreInfoRequest(),
        wire.CheckStoreRequest(),
        wire.BackupStoreRequest(),
    )
    return {type(request).__name__: request.SerializeToString() for request in requests}


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few of them flipped, cut, doubled, moved or made up."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(out) + 1)
        length = min(rng.choice([1, 1, 2, 8, 64]), len(out) - place)
        match rng.randrange(5):
            case 0 if place < len(out):
                out[place] ^= 1 << rng.randrange(8)
            case 1:
                del out[place : place + length]
            case 2:
                out[place:place] = out[place : place + length]
            case 3:
                out[place:place] = rng.randbytes(rng.choice([1, 2, 16]))
            case 4:
                out[place : place + length] = b"\0" * length
    return bytes(out)


def called(channel: grpc.Channel, method, data: bytes) -> grpc.StatusCode:
    """Call a method with bytes; how it ended."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(f"/{_SERVICE.full_name}/{method.name}")
    # A watch of something that runs has no end.
    timeout = 0.5 if method.name.startswith("Watch") else 60
    try:
        answer = call(iter([data]) if method.client_streaming else data, timeout=timeout)
        if method.server_streaming:
            for _ in answer:
                pass
        code, details = grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
    assert code not in _NEVER, f"{method.name}({data!r}): {code} {details}"
    return code


def send_garbage(log_dir: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    with serving(log_dir) as client:
        client.record()
        running = new_id()
        client.append(running, [begin(), stats()])
        valid = seeds(running)
        assert {method.input_type.name for method in _SERVICE.methods} == valid.keys(), "a call without a seed"
        for method in _SERVICE.methods:
            if not method.name.startswith("Watch"):
                assert called(client.channel, method, valid[method.input_type.name]) is grpc.StatusCode.OK, method.name
            for _ in range(rounds):
                called(client.channel, method, rng.randbytes(rng.choice([0, 1, 3, 20, 200])))
                called(client.channel, method, mutated(rng, valid[method.input_type.name]))
        assert client.get(client.record()).layer_stats_count == 2
        assert client.status(running).committed_offset >= 2


def test_requests_of_any_bytes_are_answered_and_the_server_goes_on(log_dir):
    """Random and mutated bytes to every call of a real server: no INTERNAL, no UNKNOWN, and it serves as before."""
    send_garbage(log_dir, rounds=12, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_many_requests_of_any_bytes(log_dir, seed):
    """The same, with many more."""
    send_garbage(log_dir, rounds=250, seed=100 + seed)


def test_every_field_takes_extremes(log_dir):
    """Each scalar field of each request with the largest, smallest and oddest values that its type has."""
    extremes = {
        "string": [
            "",
            "\0",
            "\x1b[2J",
            "é" * 2000,
            "a" * 70_000,
            "-1",
            "9" * 40,
            "((((",
            "\U0010ffff",
            "../../etc/passwd",
        ],
        "int32": [0, -1, 2**31 - 1, -(2**31)],
        "int64": [0, -1, 2**63 - 1, -(2**63)],
        "bool": [True],
        "bytes": [b"", b"\0" * 1000, b"\n" * 1000, b"[" * 200_000, b'{"a":' * 100_000 + b"\n", b"1" * 6000 + b"\n"],
        "enum": [0, 1, 2, 99, -1],
    }
    with serving(log_dir) as client:
        client.record()
        for method in _SERVICE.methods:
            for field in method.input_type.fields:
                kind = {9: "string", 5: "int32", 3: "int64", 8: "bool", 12: "bytes", 14: "enum"}.get(field.type, "")
                for value in extremes.get(kind, ()):
                    request = message_factory.GetMessageClass(method.input_type)()
                    if field.is_repeated:
                        getattr(request, field.name).extend([value, value])
                    else:
                        setattr(request, field.name, value)
                    called(client.channel, method, request.SerializeToString())
        assert client.list().total_size >= 1


# --- files ---


def files_of(log_dir: Path) -> list[str]:
    """A store with lines, tags, an experiment that runs; ids of the lines."""
    with opened(log_dir) as store:
        ids = [record(store, tensors=3, model=f"model-{place}") for place in range(4)]
        for place in range(4):
            store.annotate(store.index().by_number(place), lambda said, place=place: type(said)((f"tag{place}",)))
        submit(store, batch(new_id(), [begin(), *(stats(f"t{i}") for i in range(50))]))
    return ids


def damaged(rng: random.Random, path: Path) -> None:
    """Do to a file what disks, editors and careless copies do."""
    data = path.read_bytes()
    match rng.randrange(6):
        case 0:
            path.write_bytes(data[: rng.randrange(len(data) + 1)])
        case 1:
            place = rng.randrange(len(data) + 1)
            path.write_bytes(data[:place] + b"\0" * rng.randint(1, 5000) + data[place + rng.randint(0, 5000) :])
        case 2:
            path.write_bytes(rng.randbytes(rng.randint(0, 3000)))
        case 3:
            place = rng.randrange(len(data) + 1)
            path.write_bytes(data + data[place:])
        case _:
            path.write_bytes(mutated(rng, data))


def whole_ids(lines: Iterable[bytes], ids: Iterable[str]) -> Iterator[str]:
    """The experiments whose lines stand in a file as they were written."""
    for line in lines:
        try:
            found = decode_line(line)
        except LineError:
            continue
        if found.verified and found.record.get("experiment_id") in ids:
            yield found.record["experiment_id"]


def damage_and_open(log_dir: Path, source: Path, ids: list[str], rng: random.Random) -> None:
    shutil.copytree(source, log_dir)
    for name in rng.sample([LOG_NAME, META_NAME, INFLIGHT_NAME, INDEX_NAME], rng.choice([1, 1, 2])):
        damaged(rng, log_dir / name)
    survivors = set(whole_ids((log_dir / LOG_NAME).read_bytes().split(b"\n"), ids))
    kept = (log_dir / LOG_NAME).read_bytes().rpartition(b"\n")
    for _ in range(2):
        with opened(log_dir) as store:
            shown = {entry.experiment_id for entry in store.index().page(0, 1000, descending=False)}
            # A last line without its newline was never committed.
            assert {name for name in survivors if name.encode() in kept[0]} <= shown
            for name in shown & survivors:
                assert store.record(store.index().by_id(name))["status"] == "COMPLETED"
            assert record(store)
    assert (log_dir / LOG_NAME).read_bytes().startswith(kept[0] + kept[1])
    shutil.rmtree(log_dir)


def test_a_store_of_any_bytes_opens_and_serves_what_is_whole(tmp_path):
    """Each file damaged in some way: it opens, whole lines are served, it takes more, and the log keeps every byte."""
    ids = files_of(tmp_path / "source")
    rng = random.Random(7)
    for place in range(12):
        damage_and_open(tmp_path / str(place), tmp_path / "source", ids, rng)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_stores_of_any_bytes(tmp_path):
    """The same, many times."""
    ids = files_of(tmp_path / "source")
    rng = random.Random(8)
    for place in range(800):
        damage_and_open(tmp_path / str(place), tmp_path / "source", ids, rng)


@pytest.mark.parametrize("place", range(12))
def test_a_database_whose_schema_is_no_text_is_set_aside(log_dir, place):
    """Also where the damage makes even SQLite's own message unreadable."""
    ids = files_of(log_dir)
    path = log_dir / INFLIGHT_NAME
    data = bytearray(path.read_bytes())
    found = data.index(b"batches")
    data[found + place] = 0x8C
    path.write_bytes(data)
    with opened(log_dir) as store:
        assert [store.index().by_id(name) is not None for name in ids] == [True] * 4
        record(store)
