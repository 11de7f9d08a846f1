"""What any task has to keep, asked of `skeleton`: python -m pytest test_skeleton.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import RequestError
from common.plan import Unit
from gateway.one_backward import OneBackward
from tasks.parameters import weights_of
from tasks.task import DataConfig

from cli.skeleton.task import FEATURES, TASK  # isort: skip

LABELS = ("no", "yes")
MIDDLE = [str((low + high) / 2) for low, high in FEATURES.values()]
LOWEST = [str(low) for low, _ in FEATURES.values()]


def written(folder: Path, *rows: list[str]) -> DataConfig:
    """Write a file with these rows: the features, the label, the person."""
    heading = [*FEATURES, "label", "person"]
    path = folder / "rows.csv"
    path.write_text("".join(",".join(row) + "\n" for row in (heading, *rows)), encoding="utf-8")
    return DataConfig(path=path)


def test_every_site_begins_with_the_same_model() -> None:
    """The weights of two fresh models are the same bits."""
    first, second = (weights_of(TASK.build_model(LABELS)) for _ in range(2))
    assert first.digest == second.digest


def test_a_gateway_can_train_it_privately() -> None:
    """Each row's gradient can be clipped alone: no row sways another's."""
    model, specimens = TASK.build_model(LABELS), TASK.specimens(LABELS)
    OneBackward(model, TASK.loss, lambda _: specimens, specimens, micro_batch=64)


def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    """Plain steps on two rows bring the loss down."""
    data = written(tmp_path, [*MIDDLE, "no", "ann"], [*LOWEST, "yes", "ben"])
    batch = TASK.read(data, LABELS, tmp_path).batch([0, 1])
    model = TASK.build_model(LABELS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    before = TASK.loss(model, batch).sum().item()
    for _ in range(50):
        optimizer.zero_grad()
        TASK.loss(model, batch).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert TASK.loss(model, batch).sum().item() < before / 2


def test_all_rows_of_a_person_are_protected_together(tmp_path: Path) -> None:
    """The unit `person` takes the rows of one name as one."""
    data = written(tmp_path, *([*MIDDLE, "no", name] for name in ("ann", "ben", "ann")))
    rows = TASK.read(data, LABELS, tmp_path)
    assert [list(unit) for unit in rows.units(Unit.PERSON)] == [[0, 2], [1]]
    assert TASK.check(data, LABELS).per_unit == {Unit.EXAMPLE: 3, Unit.PERSON: 2}


def test_rows_that_name_nobody_have_no_person(tmp_path: Path) -> None:
    """A plan for persons is refused where the data cannot keep its promise."""
    data = written(tmp_path, [*MIDDLE, "no", ""])
    with pytest.raises(RequestError, match="line 2: no person is named"):
        TASK.read(data, LABELS, tmp_path).units(Unit.PERSON)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["many", *MIDDLE[1:], "no", "ann"], "line 2: .* is no number"),
        (["nan", *MIDDLE[1:], "no", "ann"], "line 2: .* is no number"),
        ([*MIDDLE, "perhaps", "ann"], "line 2: its label is none of no, yes"),
        ([*MIDDLE, "no", "ann", "7"], "line 2: more values than columns"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: list[str], said: str) -> None:
    """What is wrong in a file is said with its line, before anything is trained."""
    with pytest.raises(RequestError, match=said):
        TASK.check(written(tmp_path, row), LABELS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The same for files that cannot be read."""
    with pytest.raises(RequestError, match=r"none\.csv"):
        TASK.check(DataConfig(path=tmp_path / "none.csv"), LABELS)


def test_a_model_that_is_always_right_has_an_f1_of_one(tmp_path: Path) -> None:
    """The measure is 1 where every row has its label, and below where one has not."""
    data = written(tmp_path, [*MIDDLE, "no", "ann"], [*LOWEST, "yes", "ben"])
    rows = TASK.read(data, LABELS, tmp_path)
    right = torch.nn.functional.one_hot(rows.batch([0, 1])[1], len(LABELS)).float()
    assert TASK.score(_Says(right), rows).f1 == 1
    assert TASK.score(_Says(right.flip(1)), rows).f1 == 0


class _Says(torch.nn.Module):
    """A model that gives the same scores, whatever it sees."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """Return them."""
        return self.scores
