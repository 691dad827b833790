"""What is installed: the parts that belong there, no more; light where it is meant to be light."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
HEAVY = ("torch", "numpy", "transformers", "lm_eval", "datasets", "safetensors", "tokenizers", "quamba", "quantizer")
# Imports what is named, with some packages as if they were not installed, and tells which of these were wanted.
IMPORTER = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for module in {modules!r}:
    importlib.import_module(module)
print("imported", {count})
"""


# What runs in Triton, and is imported where it runs.
TRITON = (
    *("quamba.kernels.triton_", "quamba.kernels.gluon_", "quamba.prompts."),
    *(
        f"quamba.decoding.{name}"
        for name in ("float_", "graphed", "halves", "mamba1", "mamba2", "plan", "products", "ssd")
    ),
    *("quamba.decoding.runner", "quamba.observers.device_", "quamba.observers.tail_plan"),
)


def project() -> Any:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def modules_of(*packages: str) -> list[str]:
    """The names of all modules in packages of the repository."""
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    )


def import_without(absent: tuple[str, ...], modules: list[str]) -> None:
    code = IMPORTER.format(absent=frozenset(absent), modules=modules, count=len(modules))
    ran = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, f"imported {len(modules)}\n"), ran.stderr


def test_client_and_collector_need_nothing_heavy() -> None:
    """Every module of both, and the options, import where torch, numpy and the like are not installed."""
    pictures = ("client.render_plot", "client.plot_fonts")  # matplotlib's border.
    modules = [name for name in modules_of("client", "collector") if name not in pictures]
    import_without(HEAVY, [*modules, "qlog.v1.options"])


def test_whoever_asks_for_no_logs_metrics_or_traces_loads_none() -> None:
    """qlog, and a collector inside another process, import where structlog and the like are not installed."""
    serving = ("collector.serve", "collector.metrics")
    light = [name for name in modules_of("client", "collector") if name not in serving]
    import_without(("structlog", "prometheus_client", "opentelemetry"), [*light, "quantizer.entry"])


def test_the_quantizers_help_needs_nothing_heavy() -> None:
    """Options are explained and refused without torch: `quantizer --help` is there at once."""
    import_without(HEAVY[: HEAVY.index("quamba")], ["quantizer.entry", "quantizer.config", "quantizer.settings"])


def test_the_library_needs_no_gpu_packages() -> None:
    """All of quamba imports without Triton, mamba-ssm, lm-eval, transformers and gRPC, but for what is these packages'
    border: the adapter to lm-eval, kernels in Triton, and what runs on these."""
    absent = ("triton", "mamba_ssm", "causal_conv1d", "lm_eval", "transformers", "grpc", "google", "click", "qlog")
    borders = ("quamba.evals.lm_eval_adapter", *TRITON)
    modules = [name for name in modules_of("quamba") if not name.startswith(borders)]
    import_without(absent, modules)


def test_every_package_is_installed() -> None:
    """The list in pyproject.toml has each package of the tree."""
    places = [(ROOT, root) for root in ("client", "collector", "quantizer", "quamba")] + [(ROOT / "proto", "qlog")]
    found = {
        path.parent.relative_to(base).as_posix().replace("/", ".")
        for base, root in places
        for path in (base / root).rglob("__init__.py")
    }
    assert found == set(project()["tool"]["setuptools"]["packages"])


def test_every_dependency_is_pinned() -> None:
    """The constraints have a version for everything that development and CI install by name."""
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    metadata = project()["project"]
    extras = metadata["optional-dependencies"]
    wanted = {
        re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]
        for requirement in (*metadata["dependencies"], *extras["quantizer"], *extras["dev"])
    }
    # Of triton each CUDA build of torch wants its own.
    assert wanted - pinned == {"triton"}


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a clone has it: without environments, caches and stubs."""
    copy = tmp_path_factory.mktemp("clone") / "repository"
    never = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", *GENERATED)

    def ignored(directory: str, names: list[str]) -> set[str]:
        unneeded = {"build", "dist", "logs", "models", "tests"} if Path(directory) == ROOT else set()
        return {*never(directory, names), *(unneeded & set(names))}

    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def wheel(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built with what is installed here."""
    directory = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, clean_copy)
    [built] = directory.iterdir()
    return built


def pip(python: str | Path, *arguments: str | Path) -> None:
    ran = subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_wheel_has_code_stubs_and_data(wheel: Path) -> None:
    """Generated stubs with their types, the texts, the tasks, the three programs; no tests and no models."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        programs = archive.read(entry_points).decode()
    for proto in ("common", "spec", "collector", "quantizer"):
        assert {f"qlog/v1/{proto}{end}" for end in (".proto", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py")} <= names
    assert "qlog/v1/py.typed" in names
    texts = ("calibration.jsonl", "cloze.jsonl", "heldout.txt", "books.json")
    assert {f"quamba/data/gutenberg/{name}" for name in texts} <= names
    tasks = {path.name for path in (ROOT / "quamba" / "evals" / "tasks").iterdir() if path.suffix == ".yaml"}
    assert {f"quamba/evals/tasks/{name}" for name in tasks} <= names
    code = {f"{name.replace('.', '/')}" for name in modules_of("client", "collector", "quantizer", "quamba")}
    installed = {name.removesuffix(".py").removesuffix("/__init__") for name in names if name.endswith(".py")}
    assert code <= installed
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        *("client", "collector", "quantizer", "quamba", "qlog")
    }
    assert {line.partition(" =")[0] for line in programs.splitlines() if "=" in line} == {
        *("quantizer", "collector", "qlog")
    }


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_light_installation_from_nothing(clean_copy: Path, tmp_path: Path) -> None:
    """`pip install .` from a clean clone: a collector that serves, qlog that asks it, and no torch."""
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / "bin"
    pip(programs / "python", "install", clean_copy)
    for heavy in ("torch", "numpy"):
        assert subprocess.run([programs / "python", "-c", f"import {heavy}"], check=False, stderr=-3).returncode == 1
    version = project()["project"]["version"]
    for name in ("quantizer", "collector", "qlog"):
        said = subprocess.run([programs / name, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert version in said.stdout
    store = tmp_path / "store"
    with subprocess.Popen(
        [programs / "collector", "serve", "--port", "0", "--log_dir", store], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            [endpoint] = re.findall(r"listening on (\S+:\d+)", server.stdout.readline())
            asked = subprocess.run(
                [programs / "qlog", "list", "--collector", endpoint, "--format", "json"],
                capture_output=True,
                text=True,
                check=True,
                cwd=tmp_path,
            )
        finally:
            server.terminate()
    assert asked.stdout.strip() == "[]"
    assert server.returncode == 0
