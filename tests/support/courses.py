"""What a course would type for each exercise, and what is said of it before and when one step is wrong."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hoplab.practice import Exercise
from hoplab.practice.runner import ExerciseRunner

BRIEF = 0.1  # seconds that a check waits for an answer where none is to come
LONG = 20.0  # ... where one is: it goes on as soon as it is there


def course(name: str) -> dict[str, Any]:
    """The solution of an exercise, and what is said of what is not yet or only nearly one."""
    return tomllib.loads((Path(__file__).parent / "courses" / f"{name}.toml").read_text())


def missing(runner: ExerciseRunner, exercise: Exercise, patience: float = LONG) -> list[str]:
    return [result.message for result in runner.check(exercise, patience).results if not result.passed]


def nothing_done(runner: ExerciseRunner, exercise: Exercise) -> None:
    """What a check says of the starting state."""
    not_yet = course(exercise.name)[
        "not_yet"
    ]  # "*" where nobody answers: a busy machine may learn why, or wait in vain
    found = missing(runner, exercise, BRIEF if not_yet[-1].endswith("*") else LONG)
    assert len(found) == len(not_yet) and all(map(fnmatchcase, found, not_yet)), found


def nearly_done(runner: ExerciseRunner, exercise: Exercise, step: dict[str, str]) -> None:
    """What a check says where one step was typed wrong."""
    assert step["says"] in missing(runner, exercise, LONG if " saw " in step["says"] else BRIEF), step


def typed(name: str, step: dict[str, str]) -> str:
    """The solution with one step typed wrong."""
    solution: str = course(name)["solution"]
    wrong = solution.replace(step["right"], step["typed"])
    assert wrong != solution, step
    return wrong
