"""Every byte that a gateway sends, in clear: a second hop that ends its TLS, and what to seek."""

from __future__ import annotations

import asyncio
import base64
import ssl
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from common.tls import TlsFiles

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, CONTINUATION = 0, 1, 9
PADDED, PRIORITY = 0x8, 0x20


@dataclass(frozen=True)
class Frame:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def body(self) -> bytes:
        """The payload without padding and priority."""
        payload = self.payload
        if self.flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        return payload[5:] if self.kind == HEADERS and self.flags & PRIORITY else payload


def frames(raw: bytes) -> Iterator[Frame]:
    """Yield the whole frames of one connection."""
    assert raw.startswith(PREFACE)
    place = len(PREFACE)
    while place + 9 <= len(raw):
        length = int.from_bytes(raw[place : place + 3], "big")
        kind, flags, stream = struct.unpack(">BBI", raw[place + 3 : place + 9])
        yield Frame(kind, flags, stream & 0x7FFFFFFF, raw[place + 9 : place + 9 + length])
        place += 9 + length


@dataclass
class Block:
    """A block of headers (RFC 7541), read for the strings that it spells out."""

    data: bytes
    place: int = 0

    def literals(self) -> Iterator[tuple[bool, bytes]]:
        """Yield (is Huffman coded, bytes)."""
        while self.place < len(self.data):
            first = self.data[self.place]
            if first & 0x80:
                self._number(7)  # a header spelled out before, or of the standard's table
            elif first & 0xE0 == 0x20:
                self._number(5)  # the table's new size
            else:
                if not self._number(6 if first & 0x40 else 4):
                    yield self._string()  # the name
                yield self._string()

    def _number(self, bits: int) -> int:
        most, shift, more = (1 << bits) - 1, 0, True
        value = self.data[self.place] & most
        self.place += 1
        while value >= most and more:
            more = bool(self.data[self.place] & 0x80)
            value += (self.data[self.place] & 0x7F) << shift
            shift, self.place = shift + 7, self.place + 1
        return value

    def _string(self) -> tuple[bool, bytes]:
        coded = bool(self.data[self.place] & 0x80)
        length = self._number(7)
        self.place += length
        return coded, self.data[self.place - length : self.place]


@dataclass
class Tap:
    """Listens as the orchestrator, calls the orchestrator as the gateway, keeps what was sent."""

    upstream: str
    listens_as: TlsFiles
    calls_as: TlsFiles
    sent: list[bytearray] = field(default_factory=list)  # by connection
    address: str = ""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._inner = _context(ssl.PROTOCOL_TLS_SERVER, self.listens_as)
        self._outer = _context(ssl.PROTOCOL_TLS_CLIENT, self.calls_as)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._inner)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection off."""
        for writer in self._open:
            writer.transport.abort()

    def connections(self) -> list[bytes]:
        return [bytes(each) for each in self.sent]

    async def _serve(self, reader, writer) -> None:
        self._serving.add(asyncio.current_task())
        host, _, port = self.upstream.rpartition(":")
        there = await asyncio.open_connection(
            host, int(port), ssl=self._outer, server_hostname="127.0.0.1"
        )
        kept = bytearray()
        self.sent.append(kept)
        both = {writer, there[1]}
        self._open |= both
        pumps = [
            asyncio.create_task(_pump(reader, there[1], kept)),
            asyncio.create_task(_pump(there[0], writer, bytearray())),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.transport.abort()
        await asyncio.gather(*pumps)
        self._open -= both


async def _pump(reader, writer, kept: bytearray) -> None:
    try:
        while data := await reader.read(1 << 16):
            kept += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return context


def messages(raw: bytes) -> Iterator[bytes]:
    """Yield the serialised messages of one connection; each travels as it is, not compressed."""
    for body in _bodies(raw).values():
        place = 0
        while place + 5 <= len(body):
            compressed, length = struct.unpack(">BI", body[place : place + 5])
            assert not compressed
            yield body[place + 5 : place + 5 + length]
            place += 5 + length


def header_strings(raw: bytes) -> list[tuple[bool, bytes]]:
    """Return all that is spelled out in the headers of one connection."""
    blocks = (each.body for each in frames(raw) if each.kind in {HEADERS, CONTINUATION})
    return [text for block in blocks for text in Block(block).literals()]


def haystacks(raw: bytes) -> Iterator[bytes]:
    """Yield the bytes of a connection as they went, and its bodies without what frames them."""
    yield raw
    yield from _bodies(raw).values()
    yield from messages(raw)


def _bodies(raw: bytes) -> Mapping[int, bytes]:
    bodies: dict[int, bytearray] = defaultdict(bytearray)
    for frame in frames(raw):
        if frame.kind == DATA:
            bodies[frame.stream] += frame.body
    return {stream: bytes(body) for stream, body in bodies.items()}


def encodings(text: str) -> dict[str, bytes]:
    """Return `text` as a careless program might write it."""
    plain = text.encode()
    found = {
        "utf-8": plain,
        "upper": text.upper().encode(),
        "lower": text.lower().encode(),
        "reversed": text[::-1].encode(),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "escaped": text.encode("unicode_escape"),
    }
    for shift in range(3):  # what is sure in base64, whatever stands before and after
        for name, coded in (
            ("base64", base64.b64encode(bytes(shift) + plain)),
            ("base64url", base64.urlsafe_b64encode(bytes(shift) + plain)),
        ):
            sure = (8 * shift + 5) // 6, (8 * (shift + len(plain))) // 6
            found[f"{name} at {shift}"] = coded[slice(*sure)]
    return found


def token_runs(ids: Iterable[int]) -> dict[str, bytes]:
    """Return a run of token ids as arrays hold it."""
    run = list(ids)
    assert len(run) > 3, "too short a run to be sought"
    kinds = {"int16": "H", "int32": "i", "int64": "q", "float32": "f", "float64": "d"}
    return {
        f"tokens {name} {order}": struct.pack(f"{sign}{len(run)}{code}", *run)
        for name, code in kinds.items()
        for order, sign in (("le", "<"), ("be", ">"))
    }


def hits(connections: Iterable[bytes], needles: Mapping[str, bytes]) -> set[str]:
    """Return which needles are in what was sent."""
    stacks = [stack for raw in connections for stack in haystacks(raw)]
    return {name for name, needle in needles.items() if any(needle in each for each in stacks)}
