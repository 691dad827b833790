"""`quantizer generate`: what it prints in each form, and bad input that costs one line and nothing else."""

import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from quamba.completions import Completion, TextPiece
from quantizer.completion_output import output_for
from quantizer.entry import run_command
from tests.processes import running
from tests.quamba.checkpoints import MODELS, small_config, write_checkpoint

MODEL = str(MODELS / "mamba-2m")
PROMPT = "It was a dark night, and"


def generate(capsys: pytest.CaptureFixture[str], *words: str, model: str = MODEL) -> str:
    """What a command that works prints."""
    assert run_command(["generate", model, "--max_new_tokens", "8", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(generate(capsys, *words, "--format", "json"))
    return answer


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Standard input holds this."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("name", ["mamba-2m", "mamba2-4m"])
def test_a_prompt_is_continued_as_transformers_would(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The text alone, greedily the model's own, and a newline."""
    import torch
    from safetensors.torch import load_file

    from quamba.models.tokenizer import load_tokenizer
    from tests.quamba.test_models import hf_logits, to_transformers

    tokenizer = load_tokenizer(MODELS / name)
    config = json.loads((MODELS / name / "config.json").read_text())
    reference = to_transformers(config, load_file(MODELS / name / "model.safetensors"))
    start = ids = tokenizer.encode(PROMPT)
    for _ in range(8):
        ids = [*ids, int(hf_logits(reference, torch.tensor([ids]))[0, -1].argmax())]
    expected = tokenizer.decode(ids[len(start) :])
    capsys.readouterr()  # transformers tells of its slow path
    shown = generate(capsys, "--prompt", PROMPT, "--temperature", "0", model=str(MODELS / name))
    assert shown == expected + "\n"


def test_json_has_what_was_written_and_why_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """An object a prompt, in the order given; a stop string ends its own prompt's text."""
    free = as_json(capsys, "--prompt", PROMPT, "--prompt", "She said", "--temperature", "0")
    assert [answer["prompt"] for answer in free] == [PROMPT, "She said"]
    assert [list(answer) for answer in free] == [["prompt", "completion", "tokens", "finish_reason"]] * 2
    assert [(len(answer["tokens"]), answer["finish_reason"]) for answer in free] == [(8, "length")] * 2
    stop = free[0]["completion"][3:9]
    stopped = as_json(capsys, "--prompt", PROMPT, "--prompt", "She said", "--temperature", "0", "--stop", stop)
    assert stopped[0]["finish_reason"] == "stop"
    assert stopped[0]["completion"] == free[0]["completion"].partition(stop)[0]
    assert stopped[1] == free[1]


def test_a_seed_gives_the_same_text_whatever_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Neighbours and batch sizes change nothing, another seed does, and none is another one each time."""
    words = ["--prompt", PROMPT, "--temperature", "2", "--top-k", "500"]
    alone = as_json(capsys, *words, "--seed", "7")
    among = as_json(capsys, *words, "--seed", "7", "--prompt", "She said", "--prompt", PROMPT)
    assert among[:1] == alone
    assert among[2]["completion"] != alone[0]["completion"]
    one_by_one = ["--seed", "7", "--prompt", "She said", "--prompt", PROMPT, "--batch_size", "1"]
    assert as_json(capsys, *words, *one_by_one) == among
    others = [as_json(capsys, *words, *more) for more in (["--seed", "8"], [], [])]
    assert len({answer[0]["completion"] for answer in [alone, *others]}) == 4


def test_streamed_pieces_are_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    """As text for one prompt, as JSON lines for several or where JSON is asked for."""
    words = ["--prompt", PROMPT, "--seed", "3"]
    whole = generate(capsys, *words)
    assert generate(capsys, *words, "--stream") == whole
    both = as_json(capsys, *words, "--prompt", "She said")
    for more, answers in ((["--prompt", "She said"], both), (["--format", "json"], both[:1])):
        lines = [json.loads(line) for line in generate(capsys, *words, "--stream", *more).splitlines()]
        for index, answer in enumerate(answers):
            own = [line for line in lines if line["index"] == index]
            assert "".join(line["text"] for line in own) == answer["completion"]
            assert own[-1]["finish_reason"] == answer["finish_reason"]
            assert own[-1]["tokens"] == answer["tokens"]
            assert len(own) > 2


def test_text_arrives_while_the_model_goes_on() -> None:
    """The first piece is there long before the last token; Ctrl-C ends the line and says so in one more."""
    words = ["generate", MODEL, "--prompt", PROMPT, "--max_new_tokens", "1000000", "--stream", "--top_k", "5"]
    with running("quantizer.entry", *words) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            assert process.stdout.read().endswith("\n")
            assert process.stderr.read() == "quantizer: error: stopped\n"
            assert process.wait() == 130
        finally:
            guard.cancel()


def test_prompts_come_from_files_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line each, blank ones left out; all of standard input for `--prompt -`, without its last newline."""
    file = tmp_path / "prompts.txt"
    file.write_bytes("One day\r\n\n  世界 said\n".encode())
    shown = as_json(capsys, "--prompts", str(file), "--prompt", "First")
    assert [answer["prompt"] for answer in shown] == ["First", "One day", "  世界 said"]
    give(monkeypatch, b"Two lines,\nhe said\n")
    assert [answer["prompt"] for answer in as_json(capsys, "--prompt", "-")] == ["Two lines,\nhe said"]
    give(monkeypatch, b"One\nTwo\n")
    assert [answer["prompt"] for answer in as_json(capsys, "--prompts", "-")] == ["One", "Two"]


def test_an_empty_prompt_begins_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The model starts from the end of another text."""
    (answer,) = as_json(capsys, "--prompt", "", "--temperature", "0")
    assert len(answer["tokens"]) == 8


def test_only_tokens_that_mean_something_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An embedding may have more rows than the tokenizer has ids."""
    model = str(write_checkpoint(tmp_path / "model", small_config("mamba1", vocab_size=8192)))
    words = ["generate", model, "--prompt", PROMPT, "--temperature", "1000", "--seed", "1", "--format", "json"]
    assert run_command(words) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert max(answer["tokens"]) < 4096


def test_several_texts_have_titles(capsys: pytest.CaptureFixture[str]) -> None:
    """Each in its own paragraph, below the beginning of its prompt."""
    words = ["--prompt", PROMPT, "--prompt", "She said\n" * 20, "--temperature", "0"]
    first, second = as_json(capsys, *words)
    title = "She said " * 6 + "She..."
    assert generate(capsys, *words) == (
        f"==> 0: {PROMPT} <==\n{first['completion']}\n\n==> 1: {title} <==\n{second['completion']}\n"
    )


def test_both_spellings_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option takes `_` and `-`."""
    values = {"max_new_tokens": 2, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1, "batch_size": 2}
    texts = [
        generate(
            capsys,
            *["--prompt", PROMPT, "--seed", "1"],
            *(word for name, value in values.items() for word in (f"--{name.replace('_', by)}", str(value))),
        )
        for by in "_-"
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "no prompt"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--prompts", "."], "'.' cannot be read"),
        (["--prompts", "a\0b"], "cannot be read"),
        (["--prompt", "-", "--prompts", "-"], "read once"),
        (["--prompt", "a\udc80b"], "prompt 0 is no valid UTF-8"),
        (["--prompt", "a", "--temperature", "-1"], "temperature must be at least 0 and finite, not -1.0"),
        (["--prompt", "a", "--temperature", "nan"], "nan"),
        (["--prompt", "a", "--temperature", "hot"], "hot"),
        (["--prompt", "a", "--top_k", "-2"], "top_k must be at least 0, not -2"),
        (["--prompt", "a", "--top-p", "0"], "top_p"),
        (["--prompt", "a", "--min_p", "1.5"], "min_p"),
        (["--prompt", "a", "--repetition_penalty", "0"], "repetition_penalty"),
        (["--prompt", "a", "--max_new_tokens", "0"], "max_new_tokens"),
        (["--prompt", "a", "--batch_size", "0"], "batch_size"),
        (["--prompt", "a", "--seed", "-1"], "seed"),
        (["--prompt", "a", "--stop", ""], "stop"),
        (["--prompt", "a", "--format", "xml"], "xml"),
        (["--prompt", "a", "--device", "cuda:99"], "cuda:99"),
        (["--prompt", "a", "--device", "tpu"], "tpu"),
        (["--prompt", "a", "--no_such_option"], "no_such_option"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the value or its option named, nothing printed."""
    assert run_command(["generate", MODEL, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quantizer: error: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err


def test_files_that_hold_no_prompts_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, or no UTF-8."""
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    give(monkeypatch, b"caf\xe9")
    cases = {"holds no prompt": tmp_path / "empty", "no UTF-8 (byte 3)": tmp_path / "latin", "- is no UTF-8": "-"}
    for named, file in cases.items():
        assert run_command(["generate", MODEL, "--prompts", str(file)]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert named in captured.err


def test_a_model_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not there: wrong usage; there and damaged: failed."""
    (tmp_path / "config.json").write_text("{}")
    cases = {
        "nowhere": 2,
        str(tmp_path / "nowhere"): 2,
        "models/nowhere": 2,
        "m" * 5000: 2,
        "m\0": 2,
        str(tmp_path): 1,
        __file__: 1,
    }
    for model, code in cases.items():
        assert run_command(["generate", model, "--prompt", "a"]) == code
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1), captured.err
        assert ascii(model[:60])[1:-1] in captured.err


def test_wrong_options_and_help_do_not_wait_for_torch() -> None:
    """What is wrong by itself is told without loading it."""
    script = (
        "import sys; from quantizer.entry import run_command; code = run_command(sys.argv[1:]);"
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    cases = {"--help": 0, "--top_p=2": 2, "--prompts=nowhere.txt": 2}
    for word, code in cases.items():
        command = [sys.executable, "-c", script, "generate", MODEL, "--prompt", "a", word]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


class Terminal(io.StringIO):
    """Standard output that is a terminal, of an encoding that lacks most characters."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_nothing_that_it_would_act_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Controls are replaced there, and what its encoding lacks; into a file or a pipe the text goes as it is."""
    text = "a\x1b[2J\té\u202e\n"
    piece = TextPiece(0, text, Completion(text, (1,), "eos"))
    for stream in (False, True):
        output_for(["x"], stream=stream, as_json=False).show(piece)
        assert capsys.readouterr().out == text + ("" if stream else "\n")
    for stream in (False, True):
        output_for(["x"], stream=stream, as_json=True).show(piece)
        shown = capsys.readouterr().out
        assert not {"\x1b", "\u202e"} & set(shown)
        value = json.loads(shown)
        assert (value if stream else value[0])["text" if stream else "completion"] == text
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    output_for(["x"], stream=True, as_json=False).show(piece)
    assert terminal.getvalue() == "a?[2J\t??\n"
