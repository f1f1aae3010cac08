"""What people do by hand on a lab: the commands of the learners' pages, and the exercises."""

from __future__ import annotations

import pytest

from hoplab.core.paths import LabPaths
from hoplab.practice import discover, find
from hoplab.practice.runner import ExerciseRunner, nodes
from tests.support.courses import LONG, course, missing, nearly_done, nothing_done, typed
from tests.system.conftest import LabCommand, some_on_request

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own
EVERY_RUN = ("veth",)


@pytest.mark.on_request
def test_the_pages_show_what_this_lab_prints(lab: LabCommand) -> None:
    lab("pages", "--check")


@pytest.fixture(scope="module")
def exercises(lab: LabCommand, paths: LabPaths) -> ExerciseRunner:
    return ExerciseRunner(nodes(paths))


@pytest.mark.parametrize("name", some_on_request((exercise.name for exercise in discover()), EVERY_RUN, str))
def test_an_exercise_on_a_real_node(name: str, exercises: ExerciseRunner) -> None:
    """Started, done nearly right, begun anew, solved, and removed with nothing left."""
    exercise, (wrong, *_) = find(name), course(name)["nearly"]
    node, started = exercises.start(exercise)
    assert started

    def run(commands: str) -> str:
        output = exercises.nodes[node]({"it": f"( set -e\n{commands}\n)"})["it"]
        assert output.code == 0, output
        return output.out

    nothing_done(exercises, exercise)
    run(typed(name, wrong))
    nearly_done(exercises, exercise, wrong)
    assert exercises.start(exercise, again=True) == (node, True)
    run(course(name)["solution"])
    assert missing(exercises, exercise, LONG) == []
    assert exercises.reset(exercise) == [f"namespace {namespace} ({node})" for namespace in exercise.namespaces]
    assert not run("ls /run/netns /run/hoplab-practice 2>/dev/null | grep practice || :")
