"""How the packages with kernels are imported: no more of them than is called."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quamba.kernels.packages import without_top

NAME = "package_with_a_heavy_top"


@pytest.fixture
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package whose top and one of whose modules say when they are run, and whose other module is broken."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"import sys\nfrom {NAME}.ops import kernel\nsys.tops.append(kernel)\n__version__ = '1'\nmodel = 'heavy'\n"
    )
    (folder / "ops.py").write_text("kernel = object()\n")
    (folder / "broken.py").write_text("raise ImportError('no libcuda')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "tops", [], raising=False)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def tops() -> list[object]:
    return sys.tops  # type: ignore[attr-defined, no-any-return]  # the fixture's


@pytest.mark.usefixtures("_package")
def test_the_top_is_run_when_it_is_used_and_not_before() -> None:
    """A module is there without it; the first name asked of the top runs it once, with the same module."""
    with without_top(NAME):
        ops = importlib.import_module(f"{NAME}.ops")
    assert tops() == []
    top = importlib.import_module(NAME)
    assert not hasattr(top, "__warningregistry__")
    assert tops() == []
    assert (top.model, top.__version__, top.ops) == ("heavy", "1", ops)
    assert tops() == [ops.kernel]
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = top.nothing_of_this_name
    assert importlib.import_module(NAME) is top
    assert tops() == [ops.kernel]


@pytest.mark.usefixtures("_package")
def test_a_module_that_cannot_be_imported_leaves_the_package_as_it_was() -> None:
    """Whoever imports it next gets it in full."""
    with pytest.raises(ImportError, match="no libcuda"), without_top(NAME):
        importlib.import_module(f"{NAME}.broken")
    assert NAME not in sys.modules
    assert importlib.import_module(NAME).model == "heavy"


@pytest.mark.usefixtures("_package")
def test_a_package_that_is_there_stays_as_it_is() -> None:
    """And so does one that is nowhere."""
    top = importlib.import_module(NAME)
    with without_top(NAME), without_top("no_such_package_anywhere"):
        assert importlib.import_module(NAME) is top
    assert len(tops()) == 1
    assert "no_such_package_anywhere" not in sys.modules
