"""The figures of the learners' pages, one for each chapter, drawn from recordings of real labs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hoplab.core import fs
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.observe import recording_format
from hoplab.trace import svg
from hoplab.trace.follow import follow
from hoplab.trace.places import Options
from hoplab.verify import drawing

RECORDINGS = PROJECT / "tests" / "recordings"
FOLDER = PROJECT / "docs" / "lessons" / "figures"
SINGLE, NEAR, FAR = "single-659bfc6785-8hptb", "echo-lm2p5", "echo-w8kjg"  # pods of flannel-vxlan


@dataclass(frozen=True)
class Figure:
    """A picture of a recording: the way of a packet, or the topology."""

    recording: str
    ends: tuple[str, str] | None = None  # of the packet
    of: str = "nodes"  # of the topology
    options: Options = field(default_factory=Options, hash=False)

    def draw(self) -> str:
        """Return it as SVG."""
        file = RECORDINGS / f"{self.recording}.json"
        if self.ends:
            return svg.drawing(follow(recording_format.load(file), *self.ends, **self.options))
        return drawing.draw(LabPaths("dev"), recording=file, of=self.of, claims=False)


FIGURES: Mapping[str, Figure] = {  # by the name of the page
    "01-addresses": Figure("flannel-vxlan", of="all"),
    "02-interfaces": Figure("flannel-vxlan", (SINGLE, NEAR)),
    "03-routes": Figure("flannel-vxlan", (SINGLE, FAR)),
    "04-default-gateway": Figure("flannel-vxlan", (SINGLE, "198.51.100.9")),
    "05-subnets": Figure("flannel-vxlan"),
    "06-nat": Figure("flannel-vxlan", ("outside", "service/single"), options={"via": "nodeport"}),
    "07-iptables": Figure("flannel-vxlan", (SINGLE, "hoplab-verify/echo")),
    "08-ingress": Figure("flannel-vxlan", ("outside", "app1-service"), options={"via": "ingress"}),
    "09-ipv6": Figure("flannel-vxlan-dual"),
}


def file_of(name: str) -> Path:
    """Return the file of a figure."""
    return FOLDER / f"{name}.svg"


def outdated(say: Callable[[str], None] = lambda _text: None) -> dict[Path, str]:
    """Return the figures that are not what is drawn now, as SVG by file."""
    found = {}
    for name, figure in FIGURES.items():
        say(f"figure {name}")
        file, text = file_of(name), figure.draw()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            found[file] = text
    return found


def write(say: Callable[[str], None] = lambda _text: None) -> list[str]:
    """Draw all figures; return the names of those that changed."""
    found = outdated(say)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, text in found.items():
        fs.write(file, text)
    return [file.name for file in found]
