from __future__ import annotations

import pytest

from tasks import NotATask, TaskNotFound, load_task
from tasks.ner import TASK


def test_an_installed_task_is_found_by_its_module():
    assert load_task("tasks.ner:TASK") is TASK


def test_a_task_is_found_in_a_users_file(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text("from tasks.ner import NerTask\nTASK = NerTask(name='mine')\n")
    assert load_task(f"{path}:TASK").name == "mine"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("tasks.ner", "no colon"),
        ("tasks.none:TASK", "there is no module 'tasks.none'"),
        ("tasks.ner:NONE", "tasks.ner defines no NONE"),
        ("none.py:TASK", "there is no file none.py"),
    ],
)
def test_a_task_that_is_not_there_is_refused_with_the_reason(reference, reason):
    with pytest.raises(TaskNotFound, match=reason):
        load_task(reference)


def test_an_object_that_is_no_task_is_told_what_it_lacks(tmp_path):
    path = tmp_path / "half_task.py"
    path.write_text("class TASK:\n    name = 'half'\n    version = '1'\n")
    with pytest.raises(NotATask, match="no digest, build_model, loss"):
        load_task(f"{path}:TASK")
