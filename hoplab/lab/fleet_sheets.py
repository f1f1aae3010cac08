"""The sheets of a fleet: what a student needs to reach a lab, as Markdown and as a page to print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jinja2 import Environment, StrictUndefined

from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.lab.fleet_members import Fleet
from hoplab.spec.plan import LabPlan

SHEETS: tuple[Literal["md", "html"], ...] = ("md", "html")
HERE = Path(__file__).resolve().parent


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can read: sheets name key files, logs hold errors."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def write_sheets(fleet: Fleet, plans: Mapping[LabPaths, LabPlan]) -> list[Path]:
    """Write a sheet of access data for every member, as Markdown and as HTML; return the files."""
    private_folder(fleet.folder)
    written = []
    for kind in SHEETS:
        for member, plan in plans.items():
            written.append(fleet.folder / f"{member.lab}.{kind}")
            fs.write(written[-1], sheet(member, plan, kind))
    return written


def sheet(member: LabPaths, plan: LabPlan, kind: Literal["md", "html"]) -> str:
    """Return a student's sheet: machines, addresses, how to log in. It names files with secrets and holds none."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=kind == "html",
    )
    template = environment.from_string((HERE / f"fleet_sheet.{kind}.j2").read_text(encoding="utf-8"))
    return template.render(paths=member, plan=plan)
