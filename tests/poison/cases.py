"""Bad updates, made from good ones: each says of itself what is wrong with it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.bad_updates import UpdateRefusalReason as Reason
from common.randomness import KEY_BYTES, RandomStream
from common.update_form import Update, UpdateForm
from common.weights import Layout
from common.wire_formats import WireFormat

LAYOUT = Layout.of({"bias": (17,), "kernel": (20, 15), "scale": ()})
LIMIT = 2.0**11  # of a coordinate
ANY_LAYOUT = frozenset({Reason.MALFORMED, Reason.NAMES, Reason.SHAPES, Reason.ELEMENT_TYPE})


@dataclass(frozen=True)
class Good:
    """What a bad update is made from."""

    form: UpdateForm
    data: bytes  # of an update that would be counted
    others: bytes  # what another gateway has sent in this round
    bound: float  # on norms, in this round
    draw: np.random.Generator

    @property
    def begin(self) -> int:
        """Where the values begin."""
        return len(self.form.header)


@dataclass(frozen=True)
class Case:
    """What is sent, and what must come of it."""

    kind: str
    data: bytes
    verdicts: frozenset[Reason] = frozenset()  # of which one is spoken
    error: str = ""  # where none is: the class of what the gateway is answered
    header: dict[str, Any] = field(default_factory=dict)  # what differs in what is declared


def verdict(*reasons: Reason) -> frozenset[Reason]:
    return frozenset(reasons)


def encoded(good: Good, values: np.ndarray, wire_format: WireFormat | None = None) -> bytes:
    form = UpdateForm(LAYOUT, wire_format or good.form.wire_format)
    rounding = RandomStream(good.draw.bytes(KEY_BYTES))
    return Update.of(form, values.astype(np.float32), rounding).to_bytes()


def with_header(good: Good, entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + good.data[good.begin :]


def entries_of(good: Good) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", good.data[:8])
    return json.loads(good.data[8 : 8 + length])


def patched(good: Good, place: int, raw: bytes) -> bytes:
    """Return the good update with some bytes behind its header replaced."""
    begin = good.begin + place
    return good.data[:begin] + raw + good.data[begin + len(raw) :]


# the bytes are no update of the form


def random_bytes(good: Good) -> Case:
    data = good.draw.bytes(int(good.draw.integers(0, 2 * len(good.data))))
    return Case("random bytes", data, ANY_LAYOUT)


def cut(good: Good) -> Case:
    return Case("cut", good.data[: good.draw.integers(0, len(good.data))], ANY_LAYOUT)


def longer(good: Good) -> Case:
    more = good.draw.bytes(int(good.draw.integers(1, 200)))
    return Case("longer", good.data + more, verdict(Reason.MALFORMED))


def flipped_in_the_header(good: Good) -> Case:
    place, bit = good.draw.integers(0, good.begin), good.draw.integers(0, 8)
    changed = bytes([good.data[place] ^ (1 << bit)])
    return Case("header flipped", good.data[:place] + changed + good.data[place + 1 :], ANY_LAYOUT)


def renamed(good: Good) -> Case:
    entries = entries_of(good)
    old = str(good.draw.choice([name for name in entries if name]))
    entries[old + "x" * int(good.draw.integers(1, 50))] = entries.pop(old)
    return Case("renamed", with_header(good, entries), verdict(Reason.NAMES))


def one_tensor_less(good: Good) -> Case:
    entries = entries_of(good)
    del entries[str(good.draw.choice([name for name in entries if name]))]
    return Case("one tensor less", with_header(good, entries), ANY_LAYOUT)


def reshaped(good: Good) -> Case:
    entries = entries_of(good)
    shapes = ([15, 20], [300], [20, 15, 1], [20, 16], [1], [2**40, 2**40], [20, 0])
    entries["kernel"]["shape"] = shapes[good.draw.integers(len(shapes))]
    return Case("reshaped", with_header(good, entries), verdict(Reason.SHAPES, Reason.MALFORMED))


def retyped(good: Good) -> Case:
    entries = entries_of(good)
    kinds = [k for k in ("F64", "F16", "F32", "BF16", "I8", "I64") if k != good.form.element]
    entries["kernel"]["dtype"] = str(good.draw.choice(kinds))
    reasons = verdict(Reason.ELEMENT_TYPE, Reason.MALFORMED)
    return Case("retyped", with_header(good, entries), reasons)


def another_format(good: Good) -> Case:
    others = [each for each in WireFormat if each is not good.form.wire_format]
    other = others[good.draw.integers(len(others))]
    values = good.draw.normal(scale=0.1, size=LAYOUT.size)
    return Case("another format", encoded(good, values, other), verdict(Reason.ELEMENT_TYPE))


def with_metadata(good: Good) -> Case:
    entries = {"__metadata__": {"by": "nobody"}, **entries_of(good)}
    return Case("metadata", with_header(good, entries), ANY_LAYOUT)


def unsorted(good: Good) -> Case:
    entries = dict(reversed(entries_of(good).items()))
    return Case("unsorted", with_header(good, entries), verdict(Reason.MALFORMED))


def other_offsets(good: Good) -> Case:
    entries = entries_of(good)
    name = str(good.draw.choice([name for name in entries if name]))
    entries[name]["data_offsets"] = [int(n) for n in good.draw.integers(0, 1 << 40, size=2)]
    return Case("offsets", with_header(good, entries), ANY_LAYOUT)


# a value cannot be added


def not_finite(good: Good) -> Case:
    """NaN of any payload, quiet or not, or infinity, in one place or in all."""
    if good.form.wire_format is WireFormat.BFLOAT16:
        width, bits, payload = 2, 0x7F80, int(good.draw.integers(0, 0x80))
    else:
        width, bits, payload = 4, 0x7F800000, int(good.draw.integers(0, 0x800000))
    sign = int(good.draw.integers(2)) << (8 * width - 1)
    raw = (bits | payload | sign).to_bytes(width, "little")
    count = _scales(good) if good.form.wire_format is WireFormat.INT8 else LAYOUT.size
    if good.draw.integers(5) == 0:
        return Case("not finite", patched(good, 0, raw * count), verdict(Reason.NOT_FINITE))
    place = width * int(good.draw.integers(count))
    return Case("not finite", patched(good, place, raw), verdict(Reason.NOT_FINITE))


def out_of_range(good: Good) -> Case:
    exponent = good.draw.uniform(0.0, 100.0)
    value = np.float32(LIMIT * 2.0**exponent) * good.draw.choice((-1, 1))
    place = int(good.draw.integers(LAYOUT.size))
    match good.form.wire_format:
        case WireFormat.FLOAT32:
            data = patched(good, 4 * place, np.float32(value).tobytes())
        case WireFormat.BFLOAT16:
            data = patched(good, 2 * place, np.float32(value).tobytes()[2:])
        case WireFormat.INT8:
            scale = np.float32(abs(value) / 127)
            scale = max(scale, np.float32(LIMIT / 127))
            data = patched(good, 4 * int(good.draw.integers(_scales(good))), scale.tobytes())
    return Case("out of range", data, verdict(Reason.OUT_OF_RANGE))


def never_written(good: Good) -> Case:
    """What int8 never holds: -128 steps, or a scale that is negative, zero or very small."""
    if good.draw.integers(2):
        place = 4 * _scales(good) + int(good.draw.integers(LAYOUT.size))
        return Case("-128 steps", patched(good, place, b"\x80"), verdict(Reason.ENCODING))
    scales = (-1.0, 0.0, -0.0, 2.0**-101, 1e-45, -(2.0**-60))
    raw = np.float32(scales[good.draw.integers(len(scales))]).tobytes()
    place = 4 * int(good.draw.integers(_scales(good)))
    return Case("a scale", patched(good, place, raw), verdict(Reason.ENCODING))


# well formed, and refused beside the others


def too_large(good: Good) -> Case:
    values = good.draw.normal(size=LAYOUT.size)
    if good.draw.integers(2):
        values[:] = 0.0  # all of it in one coordinate
        values[good.draw.integers(LAYOUT.size)] = 1.0
    largest = 0.98 * LIMIT / np.abs(values).max() * np.linalg.norm(values)
    least = 10.3 * good.bound  # a format rounds
    norm = np.exp(good.draw.uniform(np.log(least), np.log(largest)))
    return Case(
        "too large",
        encoded(good, values * (norm / np.linalg.norm(values))),
        verdict(Reason.NORM),
    )


def copied(good: Good) -> Case:
    return Case("copied", good.others, verdict(Reason.COPY))


# transfers that are damaged, and calls at the wrong moment


def another_digest(good: Good) -> Case:
    header = {"digest": good.draw.bytes(32).hex()}
    return Case("another digest", good.data, error="DigestMismatch", header=header)


def damaged(good: Good) -> Case:
    place, bit = good.draw.integers(0, len(good.data)), good.draw.integers(0, 8)
    changed = bytes([good.data[place] ^ (1 << bit)])
    data = good.data[:place] + changed + good.data[place + 1 :]
    return Case("damaged", data, error="DigestMismatch", header={"digest_of": good.data})


def another_length(good: Good) -> Case:
    length = max(0, len(good.data) + int(good.draw.choice((-40, -1, 1, 40))))
    header = {"byte_length": length}
    return Case("another length", good.data, error="LengthMismatch", header=header)


def far_too_long(good: Good) -> Case:
    header = {"byte_length": 1 << int(good.draw.integers(32, 64))}
    return Case("far too long", good.data, error="BodyTooLong", header=header)


def another_plan(good: Good) -> Case:
    header = {"plan_digest": good.draw.bytes(32).hex()}
    return Case("another plan", good.data, error="WrongPlan", header=header)


def another_parent(good: Good) -> Case:
    header = {"parent": good.draw.bytes(32).hex()}
    return Case("another parent", good.data, error="WrongParent", header=header)


def another_round(good: Good) -> Case:
    header = {"later_by": int(good.draw.choice((-1, 1, 1000)))}
    return Case("another round", good.data, error="RoundNotOpen", header=header)


def _scales(good: Good) -> int:
    return -(-good.form.size // 256)


KINDS: tuple[Callable[[Good], Case], ...] = (
    *(random_bytes, cut, longer, flipped_in_the_header, renamed, one_tensor_less, reshaped),
    *(retyped, another_format, with_metadata, unsorted, other_offsets),
    *(not_finite, not_finite, out_of_range, out_of_range, too_large, too_large, copied),
    *(another_digest, damaged, another_length, far_too_long),
    *(another_plan, another_parent, another_round),
)


def drawn(good: Good) -> Case:
    """Return a bad update."""
    kinds = KINDS
    if good.form.wire_format is WireFormat.INT8:
        kinds = (*KINDS, never_written, never_written)
    return kinds[good.draw.integers(len(kinds))](good)
