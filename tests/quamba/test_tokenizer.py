"""Laws of tokenizers: a text's own ids and nothing else, special tokens found wherever a model's files name them."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.errors import DataError, ModelError
from quamba.models.tokenizer import load_tokenizer

MODEL = Path(__file__).parents[2] / "models" / "mamba-2m"
TOKENIZER = load_tokenizer(MODEL)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with nothing but the tokenizer itself."""
    shutil.copyfile(MODEL / "tokenizer.json", tmp_path / "tokenizer.json")
    return tmp_path


def edit(directory: Path, **changes: object) -> None:
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_script_comes_back(text: str) -> None:
    """decode(encode(text)) is the text, but for the normalisation that the tokenizer asks for."""
    import unicodedata

    assert TOKENIZER.decode(TOKENIZER.encode(text)) == unicodedata.normalize("NFC", text)


def test_a_batch_is_its_texts() -> None:
    """encode_batch gives each text's own ids, unpadded."""
    texts = ["one", "", "a longer text, with 世界 in it"]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_batch([]) == []


def test_special_tokens_are_read_skipped_or_kept() -> None:
    """The end-of-text's own spelling is its id; decoding drops it unless asked to keep it."""
    ids = TOKENIZER.encode("a<|endoftext|>b")
    assert ids[1] == TOKENIZER.eos_token_id == 0
    assert TOKENIZER.decode(ids) == "ab"
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "a<|endoftext|>b"


def test_what_is_no_unicode_is_refused_in_one_line() -> None:
    """A lone surrogate cannot be tokenised; the error shows where it is."""
    with pytest.raises(DataError, match=r"\\ud800") as failure:
        TOKENIZER.encode("abc\ud800def")
    assert "\n" not in str(failure.value)


def test_it_is_identified_by_its_file() -> None:
    """The digest is the file's SHA-256, the name the directory's."""
    assert TOKENIZER.digest == "sha256:" + hashlib.sha256((MODEL / "tokenizer.json").read_bytes()).hexdigest()
    assert (TOKENIZER.name, TOKENIZER.vocab_size) == ("mamba-2m", 4096)
    assert load_tokenizer(MODEL, name="org/model").name == "org/model"


def test_the_files_own_cutting_and_padding_are_off(directory: Path) -> None:
    """A tokenizer.json that cuts to 4 tokens and pads still gives a text's own ids."""
    edit(
        directory,
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
    )
    texts = ["It was the best of times, it was the worst of times.", "a"]
    assert load_tokenizer(directory).encode_batch(texts) == TOKENIZER.encode_batch(texts)


@pytest.mark.parametrize(
    ("files", "eos"),
    [
        ({"tokenizer_config.json": {"eos_token": "the"}}, "the"),
        ({"tokenizer_config.json": {"eos_token": {"content": "the", "lstrip": False}}}, "the"),
        ({"special_tokens_map.json": {"eos_token": "the"}}, "the"),
        ({"tokenizer_config.json": {"eos_token": "the"}, "special_tokens_map.json": {"eos_token": "of"}}, "the"),
        ({"tokenizer_config.json": {"eos_token": "absent"}, "special_tokens_map.json": {"eos_token": "of"}}, "of"),
        ({"tokenizer_config.json": {"eos_token": None}, "config.json": {"eos_token_id": 5}}, 5),
        ({"config.json": {"eos_token_id": [6, 7]}}, 6),
        ({"config.json": {"eos_token_id": 99999}}, 0),
        ({}, 0),
    ],
)
def test_the_end_of_text_is_found(directory: Path, files: dict[str, object], eos: str | int) -> None:
    """In tokenizer_config.json, special_tokens_map.json, config.json, else by its name; unknown tokens do not count."""
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    expected = TOKENIZER.encode(eos)[0] if isinstance(eos, str) else eos
    assert load_tokenizer(directory).eos_token_id == expected


def test_other_special_tokens_are_none_where_no_file_names_them(directory: Path) -> None:
    """Only the end of text is required."""
    tokenizer = load_tokenizer(directory)
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (None, None, None)
    assert (TOKENIZER.bos_token_id, TOKENIZER.pad_token_id, TOKENIZER.unk_token_id) == (0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": {}}', b"\xff\xfe"])
def test_a_damaged_file_is_refused_in_one_line(directory: Path, content: bytes) -> None:
    """Whatever is in tokenizer.json instead of a tokenizer, the error names the file."""
    (directory / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read") as failure:
        load_tokenizer(directory)
    assert "\n" not in str(failure.value)


def test_a_damaged_table_is_refused(directory: Path) -> None:
    """tokenizer_config.json has to be a JSON object."""
    (directory / "tokenizer_config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is no JSON object"):
        load_tokenizer(directory)
    (directory / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json cannot be read"):
        load_tokenizer(directory)


def test_more_ids_than_the_model_has_rows_is_refused() -> None:
    """A tokenizer of another model is found out when it is loaded."""
    with pytest.raises(ModelError, match="4096 ids, the model 4000"):
        load_tokenizer(MODEL, vocab_size=4000)
    assert load_tokenizer(MODEL, vocab_size=4096).vocab_size == 4096


def test_without_a_tokenizer_the_vocabulary_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    """The published Mamba checkpoints have GPT-NeoX's, which the assets folder may hold; others need their own."""
    empty = tmp_path / "model"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"no tokenizer in .*model.*tokenizer\.json"):
        load_tokenizer(empty, vocab_size=4096)

    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path / "assets"))
    (tmp_path / "assets" / "data" / "tokenizer").mkdir(parents=True)
    shutil.copyfile(directory / "tokenizer.json", tmp_path / "assets" / "data" / "tokenizer" / "20B_tokenizer.json")
    assert load_tokenizer(empty, vocab_size=50280).name == "EleutherAI/gpt-neox-20b"


def test_without_a_network_the_hubs_tokenizer_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says what to put where."""
    monkeypatch.setenv("QLOG_ASSETS", str(tmp_path / "absent"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"gpt-neox-20b cannot be fetched.*tokenizer\.json beside") as failure:
        load_tokenizer(tmp_path, vocab_size=50277)
    assert "\n" not in str(failure.value)


def test_sentencepiece_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package a *.model file is an error that says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    (tmp_path / "spm.model").write_bytes(b"\n")
    with pytest.raises(ModelError, match=r"spm\.model needs the sentencepiece package: pip install"):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    """Encoding, decoding, the end of text and the vocabulary's size, from a model trained here."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the sentencepiece package is not installed")
    text = tmp_path / "train.txt"
    text.write_text("the quick brown fox jumps over the lazy dog while the cat sat on the mat\n" * 50, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        byte_fallback=False,
    )
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encode("the cat sat")
    assert tokenizer.decode(ids) == "the cat sat"
    assert tokenizer.decode([*ids, tokenizer.eos_token_id]) == "the cat sat"
    assert tokenizer.eos_token_id == 2
    assert max(ids) < tokenizer.vocab_size <= 40
    (tmp_path / "spm.model").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(tmp_path)
