"""Labs of which a part could not be looked at, made of healthy recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hoplab.core.errors import LabError, UnavailableError
from hoplab.observe.facts import Facts
from hoplab.observe.outage import API, Outage
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements
from hoplab.verify.claims import Claim, ClaimFailed
from tests.support.lesson_functions import lessons, read_only

NO_API = "the API server does not answer GET /api/v1/nodes: connection refused"


def refused(node: str) -> str:
    return f"{node} can't be reached over SSH: Connection refused"


def without_nodes(lab: Snapshot, *names: str) -> Snapshot:
    """The lab as it is seen when these nodes do not answer."""
    return replace(
        lab,
        node_facts={name: facts for name, facts in lab.node_facts.items() if name not in names},
        netns_facts={name: facts for name, facts in lab.netns_facts.items() if name not in names},
        outages=tuple(Outage(name, refused(name), (f"its machine is running ({name})",)) for name in names),
    )


def without_api(lab: Snapshot) -> Snapshot:
    return replace(lab, api=Facts("api", {}, unavailable=NO_API), outages=(Outage(API, NO_API),))


def with_output(lab: Snapshot, node: str, **outputs: str) -> Snapshot:
    """The lab with more commands' outputs on a node."""
    more = {name: Output(0, text) for name, text in outputs.items()}
    facts = Facts(node, {**lab.node_facts[node].outputs, **more})
    return replace(lab, node_facts={**lab.node_facts, node: facts})


@dataclass
class Outcomes:
    """How the read-only lessons end, each with what it says."""

    passed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


def outcomes(lab: Snapshot) -> Outcomes:
    found = Outcomes()
    for name in read_only():
        lesson, claim = lessons()[name], Claim()
        given: Mapping[str, Any] = {"lab": lab, "claim": claim}
        try:
            if any(requirements.skip_reason(lab, **needs) for needs in lesson.needs):
                continue
            lesson.function(**{key: given[key] for key in lesson.takes})
            found.passed[name] = claim.seen
        except UnavailableError as error:
            found.unchecked[name] = error.message
        except ClaimFailed as error:
            found.failed[name] = error.why
        except LabError as error:
            found.failed[name] = error.message
        except Exception as error:
            found.failed[name] = f"broke: {error!r}"
    return found
