"""Small networks of every supported layer, and random ones made of them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.unit.private_step.naive import generator, randomized

WIDTH = 8
WORDS = 11


class Channels(nn.Module):
    """Runs a module that wants channels before positions."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class Picture(nn.Module):
    """Runs a two-dimensional convolution over positions and width."""

    def __init__(self, inner: nn.Conv2d) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:, None]).mean(dim=1)


class Recurrent(nn.Module):
    """Takes a recurrent layer's outputs, and adds its last state."""

    def __init__(self, inner: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        first = self.inner.batch_first
        out, state = self.inner(x if first else x.transpose(0, 1))
        hidden = state[0] + state[1] if isinstance(state, tuple) else state
        return (out if first else out.transpose(0, 1)) + hidden.sum(dim=0)[:, None, :1]


class Packed(nn.Module):
    """Runs a recurrent layer on sequences of different lengths."""

    def __init__(self, inner: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        lengths = 1 + (x[:, 0, 0].abs() * 100).long() % x.shape[1]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = self.inner(packed)
        return pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]


class Attention(nn.Module):
    """Attends within or across, with or without masks and weights."""

    def __init__(self, inner: nn.MultiheadAttention, *, mask: str, weights: bool) -> None:
        super().__init__()
        self.inner = inner
        self.mask = mask
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        records, tokens, _ = x.shape
        hidden = torch.ones(tokens, tokens, device=x.device).triu(1).bool()
        late = torch.arange(tokens, device=x.device) > 0
        masks = {
            "none": {},
            "causal": {"attn_mask": hidden, "is_causal": True},
            "added": {"attn_mask": x.new_full((tokens, tokens), 0.3).tril()},
            "by head": {"attn_mask": hidden.repeat(records * self.inner.num_heads, 1, 1)},
            "padded": {"key_padding_mask": late & (x[:, 0, :1] > 0)},
            "both": {"attn_mask": hidden, "key_padding_mask": late.expand(records, -1)},
        }[self.mask]
        first, across = self.inner.batch_first, self.inner.kdim != WIDTH
        q = x if first else x.transpose(0, 1)
        k = torch.cat([q, q], dim=2) if across else q.flip(2) if self.mask == "none" else q
        average = self.mask != "added"
        out, _ = self.inner(
            q, k, k, need_weights=self.weights, average_attn_weights=average, **masks
        )
        return out if first else out.transpose(0, 1)


class Residual(nn.Module):
    """Adds what a layer gives to what it was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x))


@st.composite
def layers(draw, kind: str | None = None) -> nn.Module:
    """One layer from (records, tokens, WIDTH) to the same."""
    kind = kind or draw(st.sampled_from(sorted(MAKERS)))
    return MAKERS[kind](draw, bias=draw(st.booleans()))


def _linear(draw, *, bias: bool) -> nn.Module:
    middle = draw(st.sampled_from([1, 5, 40]))
    return nn.Sequential(
        nn.Linear(WIDTH, middle, bias=bias), nn.ReLU(inplace=True), nn.Linear(middle, WIDTH)
    )


def _conv1d(draw, *, bias: bool) -> nn.Module:
    size = draw(st.sampled_from([1, 3, 5]))
    apart = draw(st.sampled_from([1, 2]))
    groups = draw(st.sampled_from([1, 2, 8]))
    around = apart * (size // 2)  # what wraps around may do so once only
    mode = draw(st.sampled_from(["zeros", "replicate", *(["circular"] if around <= 1 else [])]))
    middle = draw(st.sampled_from([WIDTH, 24]))
    inner = nn.Conv1d(
        WIDTH,
        middle,
        size,
        padding="same",
        dilation=apart,
        groups=groups,
        bias=bias,
        padding_mode=mode,
    )
    plain = nn.Conv1d(middle, WIDTH, 3, padding=draw(st.sampled_from([1, 2])), bias=bias)
    cut = nn.AdaptiveAvgPool1d(4)
    return Channels(nn.Sequential(inner, nn.GELU(), plain, cut))


def _conv2d(draw, *, bias: bool) -> nn.Module:
    size = draw(st.sampled_from([1, 3]))
    step = draw(st.sampled_from([1, 2]))
    inner = nn.Conv2d(1, 3, size, padding="same" if step == 1 else 1, stride=step, bias=bias)
    return nn.Sequential(Picture(inner), nn.AdaptiveAvgPool2d((4, WIDTH)))


def _recurrent(draw, kind: type, wrap: type, *, bias: bool) -> nn.Module:
    both = draw(st.booleans())
    depth = draw(st.sampled_from([1, 2]))
    first = wrap is Packed or draw(st.booleans())
    hidden = WIDTH // 2 if both else WIDTH
    return wrap(kind(WIDTH, hidden, depth, bias=bias, batch_first=first, bidirectional=both))


def _attention(draw, *, bias: bool) -> nn.Module:
    wide = draw(st.sampled_from([{}, {"kdim": 2 * WIDTH, "vdim": 2 * WIDTH}]))
    first, heads = draw(st.booleans()), draw(st.sampled_from([1, 2, 4]))
    inner = nn.MultiheadAttention(WIDTH, heads, bias=bias, batch_first=first, **wide)
    masks = ["none", "causal", "added", "by head", "padded", "both"]
    return Attention(inner, mask=draw(st.sampled_from(masks)), weights=draw(st.booleans()))


MAKERS = {
    "linear": _linear,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "lstm": lambda draw, *, bias: _recurrent(draw, nn.LSTM, Recurrent, bias=bias),
    "gru": lambda draw, *, bias: _recurrent(draw, nn.GRU, Recurrent, bias=bias),
    "packed lstm": lambda draw, *, bias: _recurrent(draw, nn.LSTM, Packed, bias=bias),
    "packed gru": lambda draw, *, bias: _recurrent(draw, nn.GRU, Packed, bias=bias),
    "attention": _attention,
    "layer norm": lambda draw, *, bias: nn.LayerNorm(WIDTH, bias=bias),
    "rms norm": lambda draw, *, bias: nn.RMSNorm(WIDTH, eps=1e-6),  # the default goes by type
    "group norm": lambda draw, *, bias: Channels(
        nn.GroupNorm(draw(st.sampled_from([1, 2])), WIDTH)
    ),
    "encoder": lambda draw, *, bias: nn.TransformerEncoderLayer(
        WIDTH, 2, 12, dropout=0.0, batch_first=True, norm_first=bias
    ),
}


@st.composite
def networks(draw, kind: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A random network with a layer of one kind in it, some of it frozen, and a batch for it."""
    depth = draw(st.integers(0, 2))
    chosen = [draw(layers(kind)), *(draw(layers()) for _ in range(depth))]
    chosen = draw(st.permutations(chosen))
    wrapped = [
        Residual(each) if isinstance(each, (nn.Linear, nn.LayerNorm)) else each for each in chosen
    ]
    words = draw(st.booleans())
    start = [nn.Embedding(WORDS, WIDTH, padding_idx=draw(st.sampled_from([None, 0])))]
    model = nn.Sequential(*(start if words else []), *wrapped, nn.Linear(WIDTH, 3))
    randomized(model, draw(st.integers(0, 10**6)))
    frozen = draw(st.sets(st.integers(0, len(model) - 2)))
    for index in frozen:
        model[index].requires_grad_(False)
    for name, p in model.named_parameters():
        if name.endswith("bias") and draw(st.integers(0, 5)) == 0:
            p.requires_grad_(False)
    records, tokens = draw(st.integers(1, 5)), draw(st.sampled_from([1, 4, 9]))
    seed = generator(draw(st.integers(0, 10**6)))
    if words:
        return model.eval(), (torch.randint(0, WORDS, (records, tokens), generator=seed),)
    return model.eval(), (torch.randn(records, tokens, WIDTH, generator=seed),)
