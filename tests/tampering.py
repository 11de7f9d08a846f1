"""Ways to tamper with a file of lines, each with the line that is then the first bad one."""
# ruff: noqa: TID251 - each try comes from its seed

from __future__ import annotations

from random import Random


def tampered(data: bytes, random: Random, *, may_cut: bool = True) -> tuple[bytes, int]:
    """Return the file with one thing wrong, and the number of its first bad line, from 1."""
    lines = data.splitlines(keepends=True)
    ways = [_flipped, _dropped, _swapped, *([_cut, _torn] if may_cut else [])]
    changed, bad = random.choice(ways)(lines, random)
    assert b"".join(changed) != data
    return b"".join(changed), bad


def _flipped(lines: list[bytes], random: Random) -> tuple[list[bytes], int]:
    """Flip one bit of one byte, the ends of lines included."""
    place = random.randrange(len(lines))
    line = bytearray(lines[place])
    line[random.randrange(len(line))] ^= 1 << random.randrange(8)
    return [*lines[:place], bytes(line), *lines[place + 1 :]], place + 1


def _dropped(lines: list[bytes], random: Random) -> tuple[list[bytes], int]:
    place = random.randrange(len(lines))
    return [*lines[:place], *lines[place + 1 :]], place + 1


def _swapped(lines: list[bytes], random: Random) -> tuple[list[bytes], int]:
    one, other = sorted(random.sample(range(len(lines)), 2))
    changed = list(lines)
    changed[one], changed[other] = lines[other], lines[one]
    return changed, one + 1


def _cut(lines: list[bytes], random: Random) -> tuple[list[bytes], int]:
    """Leave the tail out, from a line on."""
    place = random.randrange(1, len(lines))
    return lines[:place], place + 1


def _torn(lines: list[bytes], random: Random) -> tuple[list[bytes], int]:
    """Leave the tail out, from within a line on."""
    place = random.randrange(1, len(lines))
    return [*lines[:place], lines[place][: random.randrange(1, len(lines[place]))]], place + 1
