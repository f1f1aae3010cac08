"""The file format of recordings: a snapshot as JSON, reduced to the content that facts read.

Recordings hold the text that commands printed. Answers of the API are reduced to the content that facts read, as the
rest may hold secrets. A recording with ``like`` holds only its difference from that other recording. The recording of
a lab of which a part could not be looked at says so in ``outages``; other recordings do not have this key.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hoplab.core import fs
from hoplab.core.diff import diff, patch
from hoplab.core.errors import LabError
from hoplab.core.serialization import from_json, to_json
from hoplab.observe.facts import Facts, discover
from hoplab.observe.facts._json import as_read
from hoplab.observe.facts.api_ingress_classes import DEFAULT_CLASS
from hoplab.observe.facts.api_ingresses import OLD_CLASS
from hoplab.observe.outage import Outage
from hoplab.observe.script import Output
from hoplab.observe.setting import from_document, to_document
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.parts import Parts

FORMAT = 1


class RecordingError(LabError):
    """A file that is not a recording of a format of this version."""


def save(lab: Snapshot, file: Path, parts: Parts, *, like: Path | None = None) -> None:
    """Write a recording: the unchanged output of commands, and of the API's answers the content that facts read.

    The rest of an answer, for example the environment of a container, may hold secrets. Of annotations those of CNIs
    and of classes of Ingresses are kept: others hold whole manifests. With ``like``, another recording, only the
    difference from it is written.
    """
    text = json.dumps(_dump(lab, parts), indent=1, default=str)
    if like:
        changes = diff(_document(like), json.loads(text))
        text = json.dumps({"like": os.path.relpath(like, file.parent), "but": changes}, indent=1)
    fs.write(file, text + "\n")


def load(file: Path) -> Snapshot:
    """Return a recording; the same object for the same file, as long as the file does not change."""
    try:
        return _load(file, *_stamps(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingError(f"{file} is not a recording of a lab: {error}", remedy="make one: ./lab record") from None


def _stamps(file: Path) -> tuple[int, int]:
    """Return the file's time of last change in nanoseconds and its size in bytes."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _load(file: Path, _changed: int, _size: int) -> Snapshot:
    raw = _document(file)
    if raw["hoplab"] != FORMAT:
        raise ValueError(f"its format is {raw['hoplab']!r}")
    return Snapshot(
        setting=from_document(raw["setting"]),
        versions=raw["versions"],
        node_facts={name: _facts(name, outputs) for name, outputs in raw["nodes"].items()},
        netns_facts={
            node: {netns: _facts(f"{node} {netns}", outputs) for netns, outputs in found.items()}
            for node, found in raw["pods"].items()
        },
        api=replace(_facts("api", raw["api"]), unavailable=raw.get("api_unavailable", "")),
        outages=tuple(from_json(Outage, outage) for outage in raw.get("outages", ())),
    )


def _dump(lab: Snapshot, parts: Parts) -> dict[str, Any]:
    of_cnis = (prefix for part in parts.cni.values() for prefix in part.node_annotations)
    annotations = (DEFAULT_CLASS, OLD_CLASS, *of_cnis)
    return {
        "hoplab": FORMAT,
        "setting": to_document(lab.setting, parts),
        "versions": dict(lab.versions),
        "nodes": {name: _outputs(facts) for name, facts in lab.node_facts.items()},
        "pods": {
            node: {netns: _outputs(facts) for netns, facts in found.items()} for node, found in lab.netns_facts.items()
        },
        "api": {
            fact.name: {**asdict(output), "out": _redacted(as_read(fact.parse, output.out), annotations)}
            for fact in discover("api")
            if (output := lab.api.outputs.get(fact.name))
        },
        **({"outages": [to_json(outage) for outage in lab.outages]} if lab.outages else {}),
        **({"api_unavailable": lab.api.unavailable} if lab.api.unavailable else {}),
    }


def _outputs(facts: Facts) -> dict[str, dict[str, Any]]:
    return {name: asdict(output) for name, output in facts.outputs.items()}


def _redacted(text: str, annotations: tuple[str, ...]) -> str:
    """Return a JSON document with only these annotations; another text (an error message) unchanged."""

    def reduced(item: dict[str, Any]) -> dict[str, Any]:
        if isinstance(found := item.get("annotations"), dict):
            item["annotations"] = {name: value for name, value in found.items() if name.startswith(annotations)}
        return item

    try:
        document = json.loads(text, object_hook=reduced)
    except ValueError:
        return text
    return json.dumps(document, separators=(",", ":"))


def _document(file: Path) -> Any:
    """Return the document of a recording; one with ``like`` holds the difference from another one."""
    raw = json.loads(file.read_text())
    return patch(_document(file.parent / raw["like"]), raw["but"]) if "like" in raw else raw


def _facts(place: str, raw: dict[str, Any]) -> Facts:
    return Facts(place, {name: Output(**output) for name, output in raw.items()})
