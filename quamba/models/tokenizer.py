"""Text to token ids and back, from the files beside a model's weights.

Found in this order: `tokenizer.json` (the `tokenizers` library), a SentencePiece `*.model`, and for the published Mamba
checkpoints, which have neither, the tokenizer of GPT-NeoX-20B. Nothing is added to a text: no prefix, no end token.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from quamba.corpora import assets_folder
from quamba.errors import DataError, ModelError
from quamba.hub import hub_file

END_OF_TEXT = "<|endoftext|>"
NEOX_HUB_ID = "EleutherAI/gpt-neox-20b"
# Ids of the GPT-NeoX-20B tokenizer, and what checkpoints pad its vocabulary to at most (to multiples of up to 128).
NEOX_VOCAB_SIZES = range(50277, 50305)


class Backend(Protocol):
    """What a tokenizer library has to offer."""

    vocab_size: int

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of the ids."""

    def id_of(self, token: str) -> int | None:
        """Id of one token of the vocabulary."""


class JsonBackend:
    """`tokenizer.json`, by the `tokenizers` library."""

    def __init__(self, serialized: bytes) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_buffer(serialized)
        # A file may ask for cutting and padding; callers here want the text's own ids.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of the ids."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def id_of(self, token: str) -> int | None:
        """Id of one token of the vocabulary."""
        return self._tokenizer.token_to_id(token)


class SentencePieceBackend:
    """A SentencePiece model file."""

    def __init__(self, serialized: bytes, path: Path) -> None:
        try:
            library: Any = importlib.import_module("sentencepiece")
        except ImportError as error:
            raise ModelError(f"{path.name} needs the sentencepiece package: pip install sentencepiece") from error
        self._processor: Any = library.SentencePieceProcessor(model_proto=serialized)
        self.vocab_size = int(self._processor.vocab_size())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [list(ids) for ids in self._processor.encode(list(texts), out_type=int)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of the ids."""
        kept = [i for i in ids if not (skip_special_tokens and self._processor.is_control(i))]
        return str(self._processor.decode(kept))

    def id_of(self, token: str) -> int | None:
        """Id of one token of the vocabulary."""
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        name: where it comes from, for records: the directory's name or a hub id.
        digest: "sha256:..." of the tokenizer's file.
        vocab_size: largest id + 1.
        eos_token_id: the end-of-text token, also the prefix of a text without context, and padding.
        bos_token_id, pad_token_id, unk_token_id: None where the files name none.
    """

    def __init__(self, backend: Backend, *, name: str, digest: str, special_ids: Mapping[str, int]) -> None:
        self._backend = backend
        self.name = name
        self.digest = digest
        self.vocab_size = backend.vocab_size
        self.eos_token_id = special_ids["eos_token"]
        self.bos_token_id = special_ids.get("bos_token")
        self.pad_token_id = special_ids.get("pad_token")
        self.unk_token_id = special_ids.get("unk_token")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with nothing added.

        Raises:
            DataError: the text cannot be written as UTF-8.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with nothing added; in parallel where the library can.

        Raises:
            DataError: a text cannot be written as UTF-8.
        """
        try:
            return self._backend.encode_batch(texts)
        except (TypeError, UnicodeError) as error:
            raise DataError(f"a text cannot be tokenised, it is no valid Unicode: {_unwritable(texts)}") from error

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become replacement characters."""
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, eos_token_id={self.eos_token_id})"


def load_tokenizer(directory: Path, *, vocab_size: int | None = None, name: str | None = None) -> Tokenizer:
    """The tokenizer of the model in `directory`.

    Args:
        directory: holds the model's files.
        vocab_size: rows of the model's embedding; the tokenizer's ids must stay below it.
        name: for records; default: the directory's name.

    Raises:
        ModelError: there is none, it cannot be read, or it has ids that the model has no row for.
    """
    name = name or directory.name
    serialized, path, label = _tokenizer_file(directory, vocab_size, name)
    try:
        backend: Backend = JsonBackend(serialized) if path.suffix == ".json" else SentencePieceBackend(serialized, path)
    except ModelError:
        raise
    except Exception as error:  # both libraries raise Exception and RuntimeError themselves
        raise ModelError(f"the tokenizer {path} cannot be read: {_first_line(error)}") from error
    if vocab_size is not None and backend.vocab_size > vocab_size:
        raise ModelError(
            f"the tokenizer {path} has {backend.vocab_size} ids, the model {vocab_size}: they do not belong together"
        )
    digest = "sha256:" + hashlib.sha256(serialized).hexdigest()
    return Tokenizer(backend, name=label, digest=digest, special_ids=_special_ids(directory, backend, path))


def _tokenizer_file(directory: Path, vocab_size: int | None, name: str) -> tuple[bytes, Path, str]:
    """Content, path and name of the file to read."""
    candidates = [directory / "tokenizer.json", *sorted(directory.glob("*.model"))]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        if vocab_size is not None and vocab_size not in NEOX_VOCAB_SIZES:
            raise ModelError(f"no tokenizer in {directory}: put the model's tokenizer.json or SentencePiece file there")
        path, name = _neox_file(), NEOX_HUB_ID
    try:
        return path.read_bytes(), path, name
    except OSError as error:
        raise ModelError(f"the tokenizer {path} cannot be read: {error.strerror or error}") from error


def _neox_file() -> Path:
    """The GPT-NeoX-20B tokenizer: from the assets folder where it is found, else from the hub (or its cache)."""
    assets = assets_folder()
    if assets is not None and (local := assets / "data" / "tokenizer" / "20B_tokenizer.json").is_file():
        return local
    try:
        return hub_file(NEOX_HUB_ID, "tokenizer.json", kind="model")
    except OSError as error:
        raise ModelError(f"{error}: put a tokenizer.json beside the model's weights") from error


def _special_ids(directory: Path, backend: Backend, path: Path) -> dict[str, int]:
    """Ids of the special tokens; a name that the vocabulary lacks counts as not given."""
    tables = [_json_object(directory / file) for file in ("tokenizer_config.json", "special_tokens_map.json")]
    found: dict[str, int] = {}
    for role in ("eos_token", "bos_token", "pad_token", "unk_token"):
        for table in tables:
            token = table.get(role)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and (number := backend.id_of(token)) is not None:
                found.setdefault(role, number)
    if "eos_token" not in found:
        eos = _json_object(directory / "config.json").get("eos_token_id")
        eos = eos[0] if isinstance(eos, list) and eos else eos
        if not isinstance(eos, int) or not 0 <= eos < backend.vocab_size:
            eos = next((i for i in map(backend.id_of, (END_OF_TEXT, "</s>")) if i is not None), None)
        if eos is None:
            raise ModelError(f"the tokenizer {path} has no end-of-text token: name eos_token in tokenizer_config.json")
        found["eos_token"] = eos
    return found


def _json_object(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file, empty where there is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no JSON object")
    return content


def _unwritable(texts: Sequence[str]) -> str:
    """The place of the first text that is no valid Unicode, escaped."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return ascii(text[max(0, error.start - 10) : error.end + 10])
    return ascii(type(texts[0]).__name__ if texts else "")


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


__all__ = ["END_OF_TEXT", "NEOX_HUB_ID", "Tokenizer", "load_tokenizer"]
