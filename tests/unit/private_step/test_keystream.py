"""Key streams that kernels make by OpenSSL, against `cryptography`."""

from __future__ import annotations

import ctypes

import pytest
import torch

from common.randomness import RandomStream
from private_step import keystream, noise
from private_step.keystream import FUNCTIONS, INT, KeyStreams, OpenSsl, openssl

KEY = bytes(range(7, 39))
MIDDLE = 7  # of the calls
ODD = 5  # bytes read beforehand: the noise begins within a block of the cipher


@pytest.fixture
def library() -> OpenSsl:
    found = openssl()
    if found is None:
        pytest.skip("this Python's OpenSSL cannot be called")
    return found


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(noise, "WORTH_COMPILING", 1)
    monkeypatch.setattr(noise, "BLOCK", 1 << 12)


def noised(count: int) -> tuple[torch.Tensor, bytearray]:
    """Noise from a place within the stream, and what the stream holds after it."""
    stream = RandomStream(KEY)
    stream.read(ODD)
    return noise.noised_mean(torch.ones(count), 0.5, 8.0, stream), stream.read(40)


@pytest.mark.parametrize("count", [1, 2, 33, 4_095, 4_097, 40_960, 123_457])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_noise_is_the_same_whoever_makes_its_bytes(count, threads, library, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    by_openssl = noised(count)
    torch.set_num_threads(before)
    monkeypatch.setattr(noise, "openssl", lambda: None)
    by_cryptography = noised(count)
    assert torch.equal(by_openssl[0], by_cryptography[0])
    assert by_openssl[1] == by_cryptography[1]


@pytest.mark.parametrize("start", [0, 1, 16, 1000, 1 << 40])
def test_a_part_begins_at_any_byte_of_the_stream(start, library):
    stream = RandomStream(KEY)
    stream.skip(start)
    with KeyStreams(library, KEY, [0, start]) as streams:
        found = library.read(int(streams.table[1, 0]), 100)
    assert found == bytes(stream.read(100))


def test_noise_that_is_not_made_whole_is_not_given_out(library, monkeypatch):
    """OpenSSL fails once in the middle: its function, replaced, returns 0 as it does then."""
    update, calls = library.functions["EVP_EncryptUpdate"], iter(range(1000))

    @ctypes.CFUNCTYPE(INT, *FUNCTIONS["EVP_EncryptUpdate"][1])
    def failing(*given):
        return 0 if next(calls) == MIDDLE else update(*given)

    broken = OpenSsl({**library.functions, "EVP_EncryptUpdate": failing})
    monkeypatch.setattr(noise, "openssl", lambda: broken)
    with pytest.raises(RuntimeError, match=r"OpenSSL made 2\d\d,\d+ of 240,000 bytes of noise"):
        noised(40_000)


def test_a_cipher_that_cannot_start_says_so(library):
    refusing = OpenSsl({**library.functions, "EVP_EncryptInit_ex": lambda *_: 0})
    with pytest.raises(RuntimeError, match="OpenSSL cannot start AES-256-CTR"):
        KeyStreams(refusing, KEY, [0])


@pytest.mark.parametrize("replacement", [{"no such function": (None, [])}, None])
def test_a_library_without_the_cipher_is_not_used(replacement, monkeypatch):
    if replacement is None:
        monkeypatch.setattr(OpenSsl, "read", lambda *_: bytes(100))
    else:
        monkeypatch.setattr(keystream, "FUNCTIONS", replacement)
    assert openssl.__wrapped__() is None
