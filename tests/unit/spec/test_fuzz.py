"""Any file is a spec or an error that says what is wrong, within a second: no traceback, no gigabytes.

HOPLAB_FUZZ=10000 pytest tests/unit/spec/test_fuzz.py tries that many made-up files; without it a few.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoplab.core.errors import LabError, SpecError
from hoplab.core.paths import LabPaths
from hoplab.spec.model import LabSpec
from hoplab.spec.parse import load_spec
from hoplab.spec.settings import DECLARED, SETTINGS
from tests.support.specs import PARTS, FakeHost, scalars

NUMBER = int(os.environ.get("HOPLAB_FUZZ", "60"))
LONGEST_S = 1.0  # processor time for an answer: a busy machine is not slower at thinking
KEYS = sorted({word for setting in DECLARED for word in setting.path.split(".")} | {"<<", "secure", "?", "config"})
# Pieces of YAML, one a word: ~ stands for a space, / for a line break, | for a tab
PIECES = """
lab:nodes lab:cni config: lab:ipv6:~true workers memory :~ :/~~ / /~~ /| -~ [ ] { } , &a~ *a <<:~*a ?~ #~ --- ... ' "
!!int~ !!float~ !!timestamp~ !!map~ !!set~ !!binary~ !!omap~ !!python/none~ %YAML~1.1/ -1 1e999 .nan 2026-02-30 = @ `
10.0.0.0 fd00:: 2GiB auto off
"""
NASTY = ["9" * 5000, "0x" + "f" * 300, "\\x00", "\0", "\ufeff", "\u2028", "é", "|\n", ">-\n", "/8", "~"]
TOKENS = [piece.translate({126: " ", 47: "\n", 124: "\t"}) for piece in PIECES.split()] + NASTY
SCALARS = scalars(
    ["auto", "calico", "metallb", "2GiB", "10.0.0.0/8", "fd00:1::/64", "{", "x" * 5000, 10**4000],
    12,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
CONFIGS = st.dictionaries(
    st.sampled_from([f"lab:{name}" for name in SETTINGS]) | st.text(max_size=8), VALUES, max_size=6
)
SOUP = st.lists(st.sampled_from(TOKENS) | st.sampled_from(KEYS), max_size=25).map("".join)


def dumped(config: object) -> str:
    try:
        return yaml.safe_dump({"config": config}, allow_unicode=True)
    except ValueError:  # a number that Python does not print
        return f"config: {{lab:nodes: {{workers: {'9' * 5000}}}}}"


def answer(content: bytes) -> str:
    """What is said of a spec with this content; "" where it is one."""
    with tempfile.TemporaryDirectory() as folder:
        paths = LabPaths("dev", Path(folder))
        paths.spec.write_bytes(content)
        gc.disable()  # it goes through the objects of all tests before this one, which takes a second at times
        began = time.thread_time()
        try:
            assert isinstance(load_spec(paths, PARTS, FakeHost()), LabSpec)
            said = ""
        except LabError as error:
            said = error.whole()
            assert error.remedy and (not isinstance(error, SpecError) or error.issues)
        finally:
            took = time.thread_time() - began
            gc.enable()
        assert took < LONGEST_S
    assert len(said) < 100_000
    return said


@settings(max_examples=NUMBER, suppress_health_check=list(HealthCheck))
@given(
    CONFIGS.map(dumped).map(str.encode)
    | SOUP.map(lambda text: f"config:\n  {text}".encode())
    | SOUP.map(str.encode)
    | st.binary(max_size=60)
)
def test_every_file_is_a_spec_or_says_what_is_wrong(content: bytes) -> None:
    answer(content)


def bomb(line: Callable[[int], str], levels: int) -> str:
    """A file that names in each line what the line before made, several times."""
    return "config:\n  lab:x: &a0 {workers: [1, 2]}\n" + "".join(line(level) for level in range(1, levels))


REFERENCES = bomb(lambda n: f"  lab:nodes{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n", 30) + "  lab:nodes: *a29\n"
MERGES = bomb(lambda n: f"  lab:nodes{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n", 60) + "  lab:nodes: *a59\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"config: {{lab:nodes: {{workers: {'9' * 5000}}}}}", "a number of 5000 characters is too long"),
        (f"config: {{lab:nodes: '{{\"workers\": {'9' * 5000}}}'}}", "nodes: is not JSON"),
        (f"config: {{{'9' * 1000}: 1}}", "a number of 1000 characters is too long"),
        (f"config: {{lab:network: 10.0.0.0/{'9' * 5000}}}", "is not an IPv4 range"),
        ("config: " + "[" * 5000, "is nested too deeply"),
        ("config: " + "{a: " * 40 + "1" + "}" * 40, "has no namespace"),
        ("- " * 8000, "the file: is not YAML"),
        ("? " * 8000, "the file: is not YAML"),
        ("config: {lab:nodes: '" + '{"worker":' * 1500 + "'}", "nodes: is not JSON"),
        ("config:\n  lab:nodes: \0", "the file: is not YAML"),
        ("config:\n\tlab:nodes: 1", "found character '\\t' that cannot start any token"),
        ("config: {lab:nodes: {}, lab:nodes: {}}", "lab:nodes is there twice"),
        ("config: {lab:nodes: &a [*a]}", "is a list"),
        ("config: {lab:ipv6: &a {network: *a}}", "ipv6.network: is a mapping"),
        ("config: {lab:nodes: !!timestamp x}", "a value that can't be read"),
        ("config: {lab:nodes: !!int ''}", "a value that can't be read"),
        ("config: {lab:nodes: !!map [1]}", "is no mapping"),
        ("config: !!set [1]", "is no mapping"),
        ("config: !!python/object:os.system {}", "could not determine a constructor"),
        (f"config: {{lab:libvirt: {'x' * 16_000}}}", "libvirt:"),
        ("a" * 70_000, "it has 70000 characters, and a spec has 16384 at most"),
        (REFERENCES, "nodes: is a list"),
        (MERGES, "too much is merged by <<"),
        ("config: {lab:x: &a {}, lab:y: {<<: [" + "*a," * 5000 + "]}}", "too much is merged by <<"),
        ("config:\n" + "".join(f"  lab:cn{number}: 1\n" for number in range(1000)), "... and 950 more"),
        ("config: {lab:image: {components: [" + "x," * 8_000 + "]}}", "more"),
    ],
    ids=range(26),
)
def test_nasty_files_are_answered_in_time(text: str, said: str) -> None:
    found = answer(text.encode())
    assert said in found
    assert max(map(len, found.splitlines())) < 1500


def test_a_merge_that_brings_little_is_understood() -> None:
    text = "config:\n  lab:nodes:\n    worker: &size {memory: 3GiB}\n    controlPlane: {<<: *size, disk: 30GiB}\n"
    assert answer(text.encode()) == ""


def test_a_file_that_is_no_text() -> None:
    assert "Pulumi.dev.yaml can't be read: 'utf-8' codec can't decode" in answer(b"\xff\xfe")
