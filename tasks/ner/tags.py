"""IOB2 tags: the tag set of a label set, what may follow what, and the best legal path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OUTSIDE = "O"
FORBIDDEN = -1e4  # added to the log-probability of a step that IOB2 does not allow


def tag_set(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of `labels`: `O` first, then `B-` and `I-` of each label in order."""
    return (OUTSIDE, *(f"{part}-{label}" for label in labels for part in "BI"))


def label_of(tag: str) -> str | None:
    """Return the label that `tag` carries, None for `O`."""
    return None if tag == OUTSIDE else tag[2:]


def may_follow(tag: str, previous: str) -> bool:
    """Whether `tag` may stand after `previous`: an inside tag continues its own label."""
    return not tag.startswith("I-") or label_of(previous) == label_of(tag)


def first_illegal(tags: Sequence[str]) -> int | None:
    """Return the place of the first tag that IOB2 does not allow where it stands."""
    before = (OUTSIDE, *tags[:-1])
    places = (i for i, tag in enumerate(tags) if not may_follow(tag, before[i]))
    return next(places, None)


def transitions(tags: Sequence[str]) -> NDArray[np.float32]:
    """Return what each step costs: 0 where allowed, `FORBIDDEN` where not.

    Returns:
        Shape (tags, tags); row i, column j is the step from tag i to tag j.
    """
    allowed = [[may_follow(tag, previous) for tag in tags] for previous in tags]
    return np.where(allowed, 0.0, FORBIDDEN).astype(np.float32)


def decode(log_probabilities: NDArray[np.float32], tags: Sequence[str]) -> list[str]:
    """Return the most probable legal IOB2 sequence (Viterbi).

    Args:
        log_probabilities: of each word's tags, shape (words, tags), in nats.
        tags: the tag set, `O` first.

    Returns:
        One tag a word, shape (words,): never an inside tag at the start or after another label.
    """
    greedy = [tags[place] for place in log_probabilities.argmax(axis=1)]
    if first_illegal(greedy) is None:
        return greedy  # the best of all paths is legal, so it is the best legal one
    return [tags[place] for place in _best_path(log_probabilities, transitions(tags))]


def _best_path(emissions: NDArray[np.float32], steps: NDArray[np.float32]) -> list[int]:
    # a sentence starts as if an O stood before it
    score, came_from = emissions[0] + steps[0], []
    for emission in emissions[1:]:
        reached = score[:, None] + steps
        came_from.append(reached.argmax(axis=0))
        score = reached.max(axis=0) + emission
    path = [int(score.argmax())]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))
    return path[::-1]
