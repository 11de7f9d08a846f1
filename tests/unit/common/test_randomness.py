from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from common.randomness import InsecureSeed, RandomStream, derive_key, system_secret

KEY = bytes(range(32))
TEXTS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)


@pytest.fixture
def stream() -> RandomStream:
    return RandomStream(KEY)


def test_the_same_key_gives_the_same_stream(stream):
    assert np.array_equal(stream.uniforms(1000), RandomStream(KEY).uniforms(1000))


def test_another_key_gives_another_stream(stream):
    assert not np.isin(stream.uniforms(1000), RandomStream(bytes(32)).uniforms(1000)).any()


def test_a_stream_never_repeats_itself(stream):
    assert not np.isin(stream.uniforms(1000), stream.uniforms(1000)).any()


def test_the_key_stream_is_aes_256_ctr():
    """The first block is AES-256 of zero, NIST SP 800-38A's cipher under FIPS 197's key."""
    words = np.ldexp(RandomStream(KEY).uniforms(2), 53).astype(np.uint64) - np.uint64(1)
    block = bytes.fromhex("f29000b62a499fd0a9f39a6add2e7780")
    assert words.tolist() == [w >> 11 for w in np.frombuffer(block, dtype="<u8").tolist()]


def test_uniforms_lie_above_zero_and_reach_one(stream):
    uniforms = stream.uniforms(100_000)
    assert uniforms.min() > 0
    assert uniforms.max() <= 1
    assert kstest(uniforms, "uniform").pvalue > 1e-4
    assert np.array_equal(np.ldexp(uniforms, 53) % 1, np.zeros(100_000))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_any_number_of_values_can_be_drawn(stream, count):
    assert stream.uniforms(count).shape == (count,)


@pytest.mark.parametrize("count", [0, 1, 16, 100, (1 << 20) + 7])
def test_bytes_are_those_of_the_key_stream_however_they_are_read(stream, count):
    whole = RandomStream(KEY).read(count + 40)
    assert stream.read(40) + stream.read(count) == whole


def test_system_secrets_are_never_the_same():
    assert len({system_secret() for _ in range(100)}) == 100


@given(one=TEXTS, other=TEXTS, purposes=st.tuples(st.text(max_size=4), st.text(max_size=4)))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_keys_differ_as_soon_as_purpose_or_binding_does(one, other, purposes):
    first = derive_key(KEY, purpose=purposes[0], binding=one)
    second = derive_key(KEY, purpose=purposes[1], binding=other)
    assert (first == second) == (one == other and purposes[0] == purposes[1])


def test_no_two_bindings_run_together():
    shifted = [{"ab": "c"}, {"a": "bc"}, {"a": "b", "c": ""}, {"abc": ""}]
    assert len({derive_key(KEY, purpose="p", binding=binding) for binding in shifted}) == 4


def test_a_key_depends_on_the_secret():
    keys = {derive_key(secret, purpose="p", binding={}) for secret in (KEY, bytes(32))}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {32}


def test_no_two_gateways_share_a_seeds_noise():
    secrets = {InsecureSeed(7, name).secret(purpose="p", round="1") for name in ("a", "b")}
    assert len(secrets) == 2
    assert InsecureSeed(7, "a").secret(purpose="p", round="1") in secrets


@pytest.mark.parametrize("count", [0, 1, 16, 100, (1 << 20) + 7])
def test_bytes_that_are_passed_over_are_not_read_again(stream, count):
    whole = RandomStream(KEY).read(count + 80)
    assert stream.read(40) == whole[:40]
    assert stream.skip(count) == 40
    assert stream.read(40) == whole[40 + count :]
