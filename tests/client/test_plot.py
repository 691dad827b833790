"""`qlog plot`: what a picture shows is what the records say, in words that everyone who sees it can read."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.container import BarContainer
from qlog.v1 import common_pb2 as pb

from client.errors import NotFoundError
from client.labels_zh import LABELS_ZH
from client.plot_data import Form, picture
from client.plot_fonts import fonts_for
from client.render_plot import figure
from client.wire import experiment_from
from tests.client import builders
from tests.client.conftest import Ran, environment
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]


def measured(number: int, **more: Any) -> pb.Experiment:
    """An experiment on two layers, one tensor of which was reordered, and the head."""
    stats = [
        builders.tensor(
            f"layer_{layer}.x_proj:input",
            before_percentile=builders.interval(-4.0 - layer, 8.0 + number),
            after_percentile=builders.interval(-4.0, 6.0),
            measured_clipped_ratio=0.001 * (layer + 1),
            other=builders.fields({"my_kurtosis": 3.5 + layer, "kind": "heavy"}),
        )
        for layer in (0, 2)
    ]
    reorder = pb.ReorderEffect(
        before_reorder=builders.interval(-5, 5), after_reorder=pb.ValueRange(min=-2, max=3, range=4.5)
    )
    stats.append(builders.tensor("layer_2.x_conv_out:input_reordered", reorder=reorder))
    stats.append(builders.tensor("lm_head:input", measured_clipped_ratio=float("nan")))
    return builders.experiment(number, layer_stats=stats, **more)


@pytest.fixture
def collector() -> Any:
    hostile = builders.config(model="mod\x1b[31mel $x_2$ 模型 <b>&", percentile_alpha=0.99)
    with FakeCollector([measured(0), measured(1, config=hostile), builders.legacy(2)]) as server:
        yield server


def experiments(*numbers: int) -> list[Any]:
    return [experiment_from(measured(number), full=True) for number in numbers]


def test_each_kind_of_tensor_has_a_row_with_its_layers() -> None:
    """Ranges, clipped shares, and reordering where there was any; several experiments end with their results."""
    drawn = picture(experiments(0, 1))
    titles = [[panel.title for panel in row] for row in drawn.rows]
    assert titles == [
        ["x_proj:input: range", "x_proj:input: clipped"],
        [f"x_conv_out:input_reordered: {what}" for what in ("range", "clipped", "Reorder effect")],
        ["lm_head:input: range", "lm_head:input: clipped"],
        ["accuracy", "perplexity"],
    ]
    ranges = drawn.rows[0][0]
    assert ranges.ticks == ("0", "2")
    before, after = ranges.series[:2]
    assert [(point.low, point.high) for point in before.points] == [(-4.0, 8.0), (-6.0, 8.0)]
    assert [(point.low, point.high) for point in after.points] == [(-4.0, 6.0), (-4.0, 6.0)]
    assert (before.faint, after.faint) == (True, False)
    assert [point.high for point in drawn.rows[0][1].series[0].points] == [0.001, 0.003]
    # What the contract says of them: a range, not always max - min.
    assert [[point.high for point in series.points] for series in drawn.rows[1][2].series] == [[10.0], [4.5]] * 2
    assert len(picture(experiments(0)).rows) == 3


def test_what_is_no_number_is_left_out() -> None:
    """NaN is no point; the share that alpha promises stands in for one that was not measured at all."""
    clipped = picture(experiments(0)).rows[2][1]
    assert [point.high for series in clipped.series for point in series.points] == [0.0005]


def test_the_drawing_has_the_numbers(collector: FakeCollector) -> None:
    """Bars begin and end where the intervals do; lines pass through the values."""
    drawn = figure(picture(experiments(0, 1)), ("DejaVu Sans",))
    ranges, clipped = drawn.axes[:2]
    bars = [bar for bar in ranges.containers if isinstance(bar, BarContainer)]
    ends = [[(patch.get_y(), patch.get_y() + patch.get_height()) for patch in bar] for bar in bars]
    assert ends == [
        [(-4.0, 8.0), (-6.0, 8.0)],
        [(-4.0, 6.0), (-4.0, 6.0)],
        [(-4.0, 9.0), (-6.0, 9.0)],
        [(-4.0, 6.0), (-4.0, 6.0)],
    ]
    assert [list(line.get_ydata()) for line in clipped.lines] == [[0.001, 0.003]] * 2
    assert [tick.get_text() for tick in ranges.get_xticklabels()] == ["0", "2"]
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert names[:2] == ["#0 mamba-2m W8A8 alpha default", "#1 mamba-2m W8A8 alpha default"]
    assert names[2:] == ["before clipping", "after clipping", "before reordering", "after reordering"]


def test_any_statistic_can_be_drawn() -> None:
    """Those of the program by dotted path, those of the user by name; a wrong name is told with what there is."""
    drawn = picture(experiments(0), ("*.x_proj:*",), ("my_kurtosis", "before_percentile.range"))
    (row,) = drawn.rows
    assert [panel.form for panel in row] == [Form.VALUES] * 2
    assert [[point.high for point in panel.series[0].points] for panel in row] == [[3.5, 5.5], [12.0, 14.0]]
    with pytest.raises(NotFoundError, match=r"has a number 'kind': choose from .*my_kurtosis"):
        picture(experiments(0), statistics=("kind",))
    with pytest.raises(NotFoundError, match=r"no tensor matches 'nothing': there are layer_0\.x_proj:input"):
        picture(experiments(0), ("nothing",))


def svg_texts(file: Path) -> list[str]:
    return [
        "".join(each.itertext()).strip() for each in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_an_svg_has_its_texts_as_text(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """Chinese labels need no font here; what comes from a server is neither markup, nor a formula, nor a code."""
    file = tmp_path / "picture.svg"
    ran = qlog("plot", "0,1", "-o", str(file), "--collector", collector.endpoint, "--lang", "zh")
    assert (ran.code, ran.err) == (0, "")
    shown = svg_texts(file)
    assert "#1 mod\\x1b[31mel $x_2$ 模型 <b>& W8A8 alpha 0.99" in shown
    assert {LABELS_ZH["before_clipping"], LABELS_ZH["after_clipping"], LABELS_ZH["layer"]} <= set(shown)
    assert f"x_proj:input: {LABELS_ZH['range']}" in shown


def test_the_same_picture_is_the_same_file(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """Byte for byte, in each form; so that it can be kept under version control."""
    for kind, magic in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        files = [tmp_path / f"{name}.{kind}" for name in ("one", "other")]
        for file in files:
            where = ("--tensors", "lm_head*", "--collector", collector.endpoint)
            assert qlog("plot", "0", "-o", str(file), *where).code == 0
        one, other = (file.read_bytes() for file in files)
        assert one == other
        assert one.startswith(magic)


def test_without_a_font_labels_are_english(
    qlog: Qlog, collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No boxes: one warning says what to do, and the answer in the terminal stays Chinese."""
    plain = [font for font in font_manager.fontManager.ttflist if font.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", plain)
    ran = qlog("plot", "0", "1", "-o", str(tmp_path / "a.png"), "--collector", collector.endpoint, "--lang", "zh")
    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert "--font FILE" in ran.err
    assert f"x_proj:input: {LABELS_ZH['range']}" in ran.out


def font_with(characters: str, file: Path) -> None:
    """A font that has a square for each of some characters."""
    pen = TTGlyphPen(None)
    for move, point in zip((pen.moveTo, pen.lineTo, pen.lineTo), ((0, 0), (0, 500), (500, 500)), strict=True):
        move(point)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test Han", "styleName": "Regular", "psName": "TestHan-Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


def test_a_font_of_ones_own_is_used(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """With a font that has the characters, a PDF in Chinese has it inside, and nothing is warned of."""
    font = tmp_path / "han.ttf"
    font_with("".join(sorted({one for text in LABELS_ZH.values() for one in text if ord(one) > 0x2E00})), font)
    assert fonts_for([LABELS_ZH["range"]], font).missing == frozenset()
    file = tmp_path / "a.pdf"
    where = ("--tensors", "*.x_proj*", "--collector", collector.endpoint)
    ran = qlog("plot", "0", "-o", str(file), *where, "--lang", "zh", "--font", str(font))
    assert (ran.code, ran.err) == (0, "")
    assert b"TestHan-Regular" in file.read_bytes()
    broken = tmp_path / "broken.ttf"
    broken.write_text("no font")
    ran = qlog("plot", "0", "-o", str(file), "--collector", collector.endpoint, "--font", str(broken))
    assert ran.code == 1
    assert "no font that can be read" in ran.err


def test_the_numbers_of_a_picture_as_json(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """What is drawn is told to scripts, by the names of layers."""
    file = tmp_path / "a.svg"
    ran = qlog(
        "plot", "0", "--stat", "my_kurtosis", "-o", str(file), "--collector", collector.endpoint, "--format", "json"
    )
    told = json.loads(ran.out)
    assert (told["file"], told["experiments"]) == (str(file), ["#0 mamba-2m W8A8 alpha default"])
    assert told["panels"][0]["series"][0]["points"] == [
        {"at": "0", "low": 0.0, "high": 3.5},
        {"at": "2", "low": 0.0, "high": 5.5},
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("0", "-o", "a.gif"), 2, "ends in none of .png, .svg, .pdf"),
        ((), 2, "REF"),
        ((",",), 2, "give a REF"),
        (tuple("01234567890"), 2, "11 experiments: colours tell 10 apart"),
        (("2",), 1, "no statistics of tensors in #2"),
        (("0", "-o", "missing/a.png"), 1, "cannot write missing/a.png"),
    ],
)
def test_wrong_pictures_cost_one_line(
    qlog: Qlog,
    collector: FakeCollector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    """What was wrong, and no file."""
    monkeypatch.chdir(tmp_path)
    ran = qlog("plot", *arguments, "--collector", collector.endpoint)
    assert (ran.code, ran.err.count("\n"), ran.out) == (code, 1, "")
    assert said in ran.err
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path) -> None:
    """Before anything is asked for."""
    code = "import sys; sys.modules['matplotlib'] = None; from client.entry import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "plot", "0", "--log_dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.strip() == "qlog: pictures need matplotlib: pip install 'qlog-ssm[plot]'"
