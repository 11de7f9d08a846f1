from __future__ import annotations

import ctypes
import platform

import pytest

from common import allocator


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing to set")
def test_glibc_takes_the_settings():
    assert allocator.keep_on_the_heap(16 * allocator.MIB)


def test_another_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_on_the_heap(allocator.MIB)
