"""What a specification becomes, and what is refused: every option means something or is refused with a reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qlog.v1.spec_pb2 import ExperimentSpec

from quantizer.config import RunConfig
from quantizer.errors import SpecError
from quantizer.job_wire import command_of
from quantizer.layers import LayerSelection
from quantizer.wire_spec import config_of, options_of


def read(**options: Any) -> RunConfig:
    return config_of(ExperimentSpec(**{"model": "some/model", "quantize": True, **options}))


def refusal(**options: Any) -> tuple[str, str]:
    """The first field that is refused, and why."""
    with pytest.raises(SpecError) as caught:
        read(**options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return caught.value.violations[0].field, caught.value.violations[0].message


def test_an_empty_specification_has_the_defaults_of_the_table() -> None:
    """A foreign client that sets nothing gets what the command line gets."""
    config = read()
    assert (config.w_bits, config.a_bits, config.percentile_alpha, config.observer) == (8, 8, None, "")
    assert config.record()["observer"] == "ema"
    assert (config.calib_data_num, config.calib_seqlen, config.batch_size) == (512, 512, None)
    assert config.stats_layers.of(6) == (0, 1, 2)
    assert config.tasks == ("lambada_openai",)
    assert config.ppl_datasets == ("wikitext2",)


@pytest.mark.parametrize("text", ["0", "-0.5", "1.5", "nan", "inf", "-inf", "abc", "0.5x", "1e-400"])
def test_an_alpha_outside_its_interval_is_refused(text: str) -> None:
    """Alpha is a number in (0, 1]."""
    field, message = refusal(percentile_alpha=text)
    assert field == "percentile_alpha"
    assert text in message


@pytest.mark.parametrize(("text", "alpha"), [("1.0", 1.0), ("0.9995", 0.9995), ("None", None), ("", None)])
def test_alpha_is_kept_as_the_user_gave_it(text: str, alpha: float | None) -> None:
    """The record's percentile_alpha is what was asked for, None for the default."""
    assert read(percentile_alpha=text).record()["percentile_alpha"] == alpha


def test_several_alphas_are_an_experiment_each() -> None:
    """In the order given, each once; they differ in the alpha alone."""
    config = read(percentile_alpha="0.9995, 1.0,auto,0.9995")
    experiments = config.experiments()
    assert [experiment.percentile_alpha for experiment in experiments] == [0.9995, 1.0, "auto"]
    assert [experiment.record()["percentile_alpha"] for experiment in experiments] == [0.9995, 1.0, None]
    assert [experiment.record()["alpha_search"] for experiment in experiments] == [None, None, "auto"]
    first, *others = (
        {**experiment.record(), "percentile_alpha": None, "alpha_search": None} for experiment in experiments
    )
    assert all(other == first for other in others)
    assert len(read().experiments()) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"w_bits": 3},
        {"w_bits": 16},
        {"a_bits": 4},
        {"a_bits": 16},
        {"rotation": "some"},
        {"preset": "quamba3"},
        {"group_heads": True, "w_bits": 4, "a_bits": 16},
        {"hybrid_blocks_config": "file.json", "w_bits": 4},
        {"preset": "quamba2-w4a8", "w_bits": 4},
        {"preset": "quamba1", "apply_gptq": True},
        {"quantize": False, "eval_ppl": True, "apply_gptq": True},
        {"hybrid_blocks_config": "file.json"},
        {"quantize": False, "eval_ppl": True, "pretrained_dir": "somewhere"},
        {"output_subdir": "somewhere"},
        {"pretrained_dir": "somewhere", "output_subdir": "../elsewhere"},
        {"pretrained_dir": "somewhere", "output_subdir": "/elsewhere"},
        {"percentile_alpha": "0.99,2.0"},
        {"percentile_alpha": "0.99,,1.0"},
        {"percentile_alpha": "0.99,None"},
        {"percentile_alpha": ",".join(f"0.9{i}" for i in range(65))},
        {"percentile_alpha": "auto", "observer": "minmax"},
        {"percentile_alpha": "auto", "group_heads": True, "observer": "ema"},
        {"percentile_alpha": "0.999", "group_heads": True, "observer": "ema"},
        {"act_order": True},
        {"preset": "quamba2-w8a8", "act_order": True},
        {"observer": "median"},
        {"batch_size": 0},
        {"calib_data_num": 0},
        {"calib_seqlen": -1},
        {"stats_layers": "first"},
        {"stats_layers": "3-1"},
        {"stats_layers": "0,,2"},
        {"dtype": "int8", "eval_baseline": True, "eval_ppl": True},
        {"dtype": "float16"},
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"fewshot": -1},
        {"fewshot": 5},
        {"eval_few_shot": True, "fewshot": 0},
        {"eval_zero_shot": True, "task_list": " , "},
        {"eval_zero_shot": True, "limit": 0},
        {"task_list": "gutenberg_cloze"},
        {"limit": 10},
        {"ppl_dataset": "gutenberg"},
        {"eval_baseline": True},
        {"quantize": False},
        {"quantize": False, "eval_ppl": True, "percentile_alpha": "1.0"},
        {"quantize": False, "eval_ppl": True, "observer": "exact"},
        {"quantize": False, "eval_ppl": True, "shuffle_seed": 1},
        {"quantize": False, "eval_ppl": True, "calib_data": "builtin"},
        {"quantize": False, "eval_ppl": True, "eval_baseline": True},
        {"quantize": False, "eval_ppl": True, "w_bits": 4},
        {"model": ""},
        {"model": "a\nb"},
        {"model": "x" * 5000},
    ],
    ids=str,
)
def test_what_cannot_be_done_or_would_do_nothing_is_refused(options: dict[str, Any]) -> None:
    """The refusal names one of the options at fault."""
    field, message = refusal(**options)
    assert field in options
    assert message


def test_a_rotation_without_quantization_is_refused() -> None:
    """It would change nothing of what is evaluated."""
    field, message = refusal(quantize=False, eval_ppl=True, rotation="none")
    assert field == "rotation"
    assert "--quantize" in message


def test_a_hybrid_needs_its_file() -> None:
    """Without a choice for each layer there is nothing to build."""
    for options in ({"hybrid_blocks": True, "w_bits": 4}, {"preset": "quamba2-w4ax"}):
        field, message = refusal(**options)
        assert field == "hybrid_blocks_config"
        assert "JSON array" in message


@pytest.mark.parametrize("alpha", ["0.9995", "auto"])
def test_an_alpha_with_head_groups_needs_no_other_option(alpha: str) -> None:
    """Groups are known after the sweep: their quantiles are exact unless the user says otherwise, and recorded so."""
    config = read(group_heads=True, percentile_alpha=alpha)
    assert {clipping.kind for clipping in config.recipe().clippings_for(256)} <= {"exact"}
    assert config.record()["observer"] == "exact"


def test_a_preset_stands_for_its_options() -> None:
    """It asks for quantization by itself, leaves alpha and observer to the user, and is named in the record."""
    config = read(quantize=False, preset="quamba2-w4a16", observer="exact")
    assert config.quantize
    recipe = config.recipe()
    assert (recipe.w_bits, recipe.a_bits, recipe.apply_gptq, recipe.observer) == (4, 16, True, "exact")
    assert (recipe.quantize_embedding, recipe.quantize_lm_head, recipe.group_heads) == (True, True, False)
    assert config.record()["preset"] == "quamba2-w4a16"
    assert read(preset="quamba2-w4a8").group_heads is None
    assert read(preset="quamba1").recipe().per_tensor_weights


def test_what_is_asked_of_the_library_is_what_the_record_says() -> None:
    """Options reach the recipe, and the record names them."""
    config = read(w_bits=4, a_bits=16, apply_gptq=True, quantize_lm_head=True, rotation="none")
    recipe, record = config.recipe(), config.record()
    assert (recipe.w_bits, recipe.a_bits, recipe.apply_gptq, recipe.rotate) == (4, 16, True, False)
    assert [record[key] for key in ("w_bits", "a_bits", "apply_gptq", "quantize_lm_head")] == [4, 16, True, True]
    assert (record["rotation"], record["quantize_embedding"]) == ("none", False)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """One round trip is enough to mend a specification."""
    with pytest.raises(SpecError) as caught:
        read(w_bits=3, percentile_alpha="2", batch_size=0)
    assert {violation.field for violation in caught.value.violations} == {"w_bits", "percentile_alpha", "batch_size"}


def test_without_quantize_the_record_says_16_bits() -> None:
    """An evaluation of the model as it is does not look like W8A8 in the log."""
    record = read(quantize=False, eval_ppl=True).record()
    assert (record["w_bits"], record["a_bits"], record["quantize"]) == (16, 16, False)


def test_the_record_begins_with_the_fixed_keys_in_their_order() -> None:
    """Scripts that people have read these keys; others follow."""
    assert list(read().record())[:10] == [
        "model",
        "w_bits",
        "a_bits",
        "percentile_alpha",
        "group_heads",
        "apply_gptq",
        "quantize_embedding",
        "quantize_lm_head",
        "calib_data_num",
        "calib_seqlen",
    ]


def test_testing_bounds_what_is_run_and_says_so() -> None:
    """--testing: at most 100 documents a task, 16 for calibration, 8 windows; smaller wishes stay."""
    config = read(testing=True, eval_zero_shot=True)
    assert (config.limit, config.calib_data_num, config.max_windows) == (100, 16, 8)
    small = read(testing=True, eval_zero_shot=True, limit=7, calib_data_num=3)
    assert (small.limit, small.calib_data_num) == (7, 3)
    assert config.record()["testing"] is True


def test_tasks_are_evaluated_once_for_each_number_of_examples() -> None:
    """Zero-shot, few-shot and generation that come to the same are not run twice."""
    assert read(eval_zero_shot=True, eval_generation=True).shots == (0,)
    assert read(eval_zero_shot=True, eval_few_shot=True, fewshot=5, eval_generation=True).shots == (0, 5)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("3", (0, 1, 2)),
        ("all", (0, 1, 2, 3, 4, 5)),
        ("0", ()),
        ("99", (0, 1, 2, 3, 4, 5)),
        ("5,", (5,)),
        ("0,2-4", (0, 2, 3, 4)),
    ],
)
def test_layers_are_counted_or_listed(text: str, layers: tuple[int, ...]) -> None:
    """A number counts from the first, a list names."""
    assert LayerSelection.parse(text).of(6) == layers


@given(st.sets(st.integers(0, 99), min_size=1))
def test_any_list_of_layers_reads_back(layers: set[int]) -> None:
    """Written with a comma after each, a set of layers is that set."""
    text = "".join(f"{layer}," for layer in layers)
    assert LayerSelection.parse(text).of(100) == tuple(sorted(layers))


@given(st.text(max_size=30).filter(lambda text: text.strip().lower() not in ("", "none", "null")))
def test_a_text_that_is_no_alpha_is_refused_in_one_line(text: str) -> None:
    """Whatever is given as alpha, it is a number in (0, 1] or a refusal."""
    try:
        valid = 0.0 < float(text) <= 1.0
    except ValueError:
        valid = False
    if valid and text.isprintable():
        assert read(percentile_alpha=text).percentile_alpha == float(text)
    else:
        assert refusal(percentile_alpha=text)[0] == "percentile_alpha"


def test_every_field_of_the_specification_is_read() -> None:
    """An option that is added to the table and forgotten here is found: each is in the configuration or refused."""
    planned = {
        "group_heads",
        "apply_gptq",
        "quantize_embedding",
        "quantize_lm_head",
        "hybrid_blocks",
        "hybrid_blocks_config",
        "pretrained_dir",
        "output_subdir",
    }
    renamed = {"task_list": "tasks", "ppl_dataset": "ppl_datasets"}
    known = set(RunConfig.__dataclass_fields__)
    for name in options_of(ExperimentSpec()):
        assert name in planned or renamed.get(name, name) in known


def test_a_command_is_rebuilt_where_none_was_sent() -> None:
    """What differs from the defaults is in it, quoted as a shell wants it."""
    spec = ExperimentSpec(model="a model", quantize=True, percentile_alpha="1.0", w_bits=8, batch_size=4)
    assert command_of(spec) == "quantizer run 'a model' --quantize --percentile_alpha 1.0 --batch_size 4"
