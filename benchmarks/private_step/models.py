"""Four taggers of sentences, of common kinds and sizes, with made-up weights and sentences.

A sentence is a unit. Token ids follow Zipf's law, so that a sentence repeats some, as text does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch: TypeAlias = tuple[Tensor, ...]  # ids and tags, both of shape (sentences, TOKENS)

VOCABULARY = 20_000
TOKENS = 32
TAGS = 9
LORA_RANK = 8


class BiLstm(nn.Module):
    """Embedding, a bidirectional LSTM, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 100)
        self.lstm = nn.LSTM(100, 200, batch_first=True, bidirectional=True)
        self.head = nn.Linear(400, TAGS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores, shape (sentences, tokens, tags)."""
        found: Tensor = self.head(self.lstm(self.embedding(ids))[0])
        return found


class ConvolutionBlock(nn.Module):
    """A convolution over three tokens, a layer norm, and the input again where widths agree."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(into, out, 3, padding=1)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (sentences, tokens, out)."""
        found = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        found = functional.gelu(self.norm(found))
        return x + found if x.shape == found.shape else found


class Cnn(nn.Module):
    """Embedding, three convolutions, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 128)
        self.blocks = nn.Sequential(*(ConvolutionBlock(into, 256) for into in (128, 256, 256)))
        self.head = nn.Linear(256, TAGS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores, shape (sentences, tokens, tags)."""
        found: Tensor = self.head(self.blocks(self.embedding(ids)))
        return found


@dataclass(frozen=True)
class Size:
    """How large an encoder is."""

    layers: int
    width: int
    heads: int
    inner: int  # width between the two feed-forward layers
    vocabulary: int = VOCABULARY
    tokens: int = TOKENS


SMALL = Size(layers=4, width=256, heads=4, inner=1024)
BASE = Size(layers=12, width=768, heads=12, inner=3072)  # as BERT-base


class PreNormLayer(nn.Module):
    """Attention and feed-forward, each behind its layer norm; one projection for all three."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm_before_attention = nn.LayerNorm(size.width)
        self.projection = nn.Linear(size.width, 3 * size.width)
        self.output = nn.Linear(size.width, size.width)
        self.norm_before_inner = nn.LayerNorm(size.width)
        self.inner = nn.Linear(size.width, size.inner)
        self.outer = nn.Linear(size.inner, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (sentences, tokens, width)."""
        projected = self.projection(self.norm_before_attention(x)).chunk(3, dim=-1)
        x = x + self.output(attended(projected, self.heads))
        inner = functional.gelu(self.inner(self.norm_before_inner(x)))
        found: Tensor = x + self.outer(inner)
        return found


class PostNormLayer(nn.Module):
    """Attention and feed-forward as in BERT: a layer norm after each, projections apart."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(size.width, size.width) for _ in range(4)
        )
        self.norm_after_attention = nn.LayerNorm(size.width)
        self.inner = nn.Linear(size.width, size.inner)
        self.outer = nn.Linear(size.inner, size.width)
        self.norm_after_outer = nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (sentences, tokens, width)."""
        projected = (self.query(x), self.key(x), self.value(x))
        x = self.norm_after_attention(x + self.output(attended(projected, self.heads)))
        inner = functional.gelu(self.inner(x))
        found: Tensor = self.norm_after_outer(x + self.outer(inner))
        return found


class Encoder(nn.Module):
    """Tokens and their positions, layers of attention, one linear layer."""

    def __init__(self, size: Size, layer: Callable[[Size], nn.Module]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.tokens, size.width)
        self.layers = nn.Sequential(*(layer(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, TAGS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores, shape (sentences, tokens, tags)."""
        places = torch.arange(ids.shape[1]).repeat(len(ids), 1)  # a row for each sentence
        x = self.layers(self.tokens(ids) + self.positions(places))
        found: Tensor = self.head(self.norm(x))
        return found


def attended(projected: tuple[Tensor, ...], heads: int) -> Tensor:
    """Let every token look at all of its sentence; shape (sentences, tokens, width)."""
    query, key, value = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in projected)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


def with_lora(encoder: Encoder, *, use_dora: bool = False) -> nn.Module:
    """Freeze an encoder but for its head, and give it adapters by `peft`.

    Adapters are not zero at first, as they are in use: half of their gradients would be zero.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - for this model alone

    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        target_modules=["query", "value"],
        init_lora_weights=False,
        use_dora=use_dora,
    )
    adapted = inject_adapter_in_model(config, encoder)
    encoder.head.requires_grad_(True)
    return adapted


def _transformer() -> nn.Module:
    return Encoder(SMALL, PreNormLayer)


def _lora() -> nn.Module:
    return with_lora(Encoder(BASE, PostNormLayer))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "bilstm": BiLstm,
    "cnn": Cnn,
    "transformer": _transformer,
    "lora": _lora,
}


def built(name: str) -> nn.Module:
    """Return a model of `MODELS`, each time with the same weights."""
    return with_fixed_weights(MODELS[name]())


def with_fixed_weights(model: nn.Module) -> nn.Module:
    """Draw every matrix anew at a usual width, with a generator; biases become zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(std=p[0].numel() ** -0.5, generator=generator)
            elif "bias" in name:
                p.zero_()
    return model


def sentences(count: int, *, seed: int = 1) -> Batch:
    """Return made-up sentences and their tags."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, TOKENS, generator=generator)
    ids = uniform.mul_(math.log(VOCABULARY)).exp_().sub_(1).long().clamp_(0, VOCABULARY - 1)
    return ids, torch.randint(0, TAGS, (count, TOKENS), generator=generator)


def loss(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """Return each sentence's loss, the mean over its tokens, shape (sentences,)."""
    ids, tags = batch
    scores = model(ids)
    of_token = functional.cross_entropy(scores.flatten(0, 1), tags.flatten(), reduction="none")
    return of_token.view(tags.shape).mean(dim=1)
