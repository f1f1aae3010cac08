"""The units that pods of a node depend on: their state, the kubelet's own health check, and last lines of a log."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

KUBELET = "kubelet"
UNITS = ("containerd", KUBELET)
LAST_WORDS = 5  # lines of a journal or log of what does not run
LINE = 300  # characters kept of one of them
HEALTH_S = 5  # seconds for the answer to the health check
_HEALTH = "http://127.0.0.1:10248/healthz"


@dataclass(frozen=True)
class Unit:
    """A unit of systemd on a node."""

    name: str  # "kubelet"
    state: str  # "active", "failed", "activating"
    health: str  # "ok", or curl's exit code and message; "" where the unit has no health check
    last_words: tuple[str, ...]  # the end of its journal; none while it runs well

    @property
    def runs(self) -> bool:
        return self.state == "active"

    @property
    def answers(self) -> bool:
        """Return whether its health check says that it works; True where it has none."""
        return self.health in ("", "ok")


def command() -> str:
    """Return the command: for each unit its state, and where that is not a good one the end of its journal."""
    lines = [f"set -- $(systemctl is-active {' '.join(UNITS)} 2>/dev/null)"]
    for unit in UNITS:
        lines += ["state=$1; [ $# = 0 ] || shift", f'echo "unit {unit} $state"', "health=ok"]
        if unit == KUBELET:
            asked = f"health=$(curl --silent --show-error --max-time {HEALTH_S} {_HEALTH} 2>&1)"
            lines += [f'{asked} || health="no answer: $health"', 'echo "health $health"']
        said = f"journalctl --quiet --no-pager --output cat --lines {LAST_WORDS} --unit {unit}"
        lines.append(f"""[ "$state $health" = "active ok" ] || {said} | cut -c 1-{LINE} | sed 's/^/said /'""")
    return "\n".join([*lines, "true"])


def parse(text: str) -> tuple[Unit, ...]:
    """Return the units; raise FactError on a line that does not begin with ``unit``, ``health`` or ``said``."""
    found: list[Unit] = []
    for line in text.splitlines():
        unit = re.fullmatch(r"unit (\S+) ?(.*)", line)
        word, _, rest = line.partition(" ")
        if unit:
            found.append(Unit(unit[1], unit[2], "", ()))
        elif found and word == "health":
            found[-1] = Unit(found[-1].name, found[-1].state, rest or "no answer", ())
        elif found and word == "said":
            last = found[-1]
            found[-1] = Unit(last.name, last.state, last.health, (*last.last_words, rest))
        else:
            raise FactError(f"{line!r} is not the state of a unit", remedy="run `systemctl status kubelet` on the node")
    return tuple(found)


NODE_UNITS = Fact("units", command(), parse)
