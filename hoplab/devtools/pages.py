"""The learners' pages: Markdown with console blocks of commands and their recorded output in a lab.

<!-- lab: worker2-echo=10.244.0.5 -->
```console
worker1/echo# curl -s 10.244.0.5:8080 | jq -r .remote_addr
10.244.1.3
```

A line with a prompt is a command, the lines after it are its output. `worker1#` is root on that node,
`worker1/echo#` the network namespace of the pod of that app there, `single#` that of an app's only pod, and
`host$` this machine, for verbs of ./lab. The comment lists the block's `values` that differ
between labs; with `fails` in it the commands have to fail.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address
from itertools import groupby
from pathlib import Path

from hoplab.core import fs, host_network
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.observe.script import Output
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Pod
from hoplab.verify import session, traffic, workload
from hoplab.verify.session import LabSession

FOLDERS = (PROJECT / "docs" / "lessons", PROJECT / "docs" / "days")
HOST = "host"
HOST_VERBS = ("kubectl", "practice", "ssh", "status", "verify", "version")  # none creates or removes a machine
LIMIT = 60  # seconds for one command on a node

_BEGIN, _END = "```console", "```"
_COMMENT = re.compile(r"<!-- lab:((?: (?:fails|[a-z0-9-]+=\S+))+) -->")
_PROMPT = re.compile(r"(host(?=\$)|[a-z][a-z0-9-]*(?:/[a-z][a-z0-9-]*)?(?=#))[$#] (\S.*)")


class PageError(LabError):
    """A page that can't be parsed, or a command with an unexpected failure or success."""

    def __init__(self, page: str, line: int, what: str, remedy: str = "") -> None:
        super().__init__(
            f"{page}:{line + 1}: {what}", remedy=remedy or "see docs/lessons/README.md for the format of pages"
        )


@dataclass(frozen=True)
class Step:
    """One command and its output."""

    line: int  # of its prompt, the first line being 0
    place: str  # "worker1", "worker1/echo", "single", "host"
    command: str  # several lines where a line ends with a backslash
    output: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return f"{self.place}{'$' if self.place == HOST else '#'} {self.command}"


@dataclass(frozen=True)
class Block:
    """A console block, with the values of its recording by name."""

    steps: tuple[Step, ...]
    values: Mapping[str, str]
    fails: bool


@dataclass(frozen=True)
class Page:
    name: str  # "docs/lessons/03-routes.md"
    lines: tuple[str, ...]
    blocks: tuple[Block, ...]


def parse(name: str, text: str) -> Page:
    """Parse a page; raise PageError where a block is malformed."""
    lines, blocks, begin = text.split("\n"), [], -1
    for number, line in enumerate(lines):
        if begin < 0 and line == _BEGIN:
            begin = number
        elif begin >= 0 and line == _END:
            blocks.append(_block(name, lines, begin, number))
            begin = -1
        elif line.startswith("<!-- lab:") and not (_COMMENT.fullmatch(line) and lines[number + 1 :][:1] == [_BEGIN]):
            raise PageError(name, number, f"`{line}` does not name values for a console block right below it")
    if begin >= 0:
        raise PageError(name, begin, "the console block does not end")
    return Page(name, tuple(lines), tuple(blocks))


def _block(name: str, lines: Sequence[str], begin: int, end: int) -> Block:
    comment = _COMMENT.fullmatch(lines[begin - 1]) if begin else None
    words = comment[1].split() if comment else []
    steps: list[Step] = []
    for number in range(begin + 1, end):
        if steps and not steps[-1].output and steps[-1].command.endswith("\\"):
            steps[-1] = replace(steps[-1], command=f"{steps[-1].command}\n{lines[number]}")
        elif found := _PROMPT.fullmatch(lines[number]):
            steps.append(Step(number, found[1], found[2]))
            if found[1] == HOST and not re.match(rf"\./lab (?:{'|'.join(HOST_VERBS)})\b", found[2]):
                raise PageError(name, number, f"`{found[2]}` is none of ./lab {', '.join(HOST_VERBS)}")
        elif steps:
            steps[-1] = replace(steps[-1], output=(*steps[-1].output, lines[number]))
    if not steps or steps[0].line != begin + 1:
        raise PageError(name, begin, "a console block begins with a prompt and a command, as `worker1# ip route`")
    return Block(tuple(steps), dict(word.split("=", 1) for word in words if "=" in word), "fails" in words)


def written(page: Page, blocks: Sequence[Block]) -> str:
    """Return the page's text with the values, commands and outputs of these blocks, otherwise unchanged."""
    lines: list[str] = []
    done = 0
    for old, new in zip(page.blocks, blocks, strict=True):
        for before, after in zip(old.steps, new.steps, strict=True):
            lines += page.lines[done : before.line]
            if before is old.steps[0]:
                for name, value in old.values.items():
                    lines[-2] = lines[-2].replace(f" {name}={value} ", f" {name}={new.values[name]} ")
            lines += [*after.prompt.split("\n"), *after.output]
            done = before.line + 1 + before.command.count("\n") + len(before.output)
    return "\n".join([*lines, *page.lines[done:]])


def substitute(text: str, words: Mapping[str, str]) -> str:
    """Return the text with all of the words replaced in one pass."""
    some = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])(?:{some})(?![\w-]|\.\w)", lambda found: words[found[0]], text) if words else text


def bind_values(page: Page, block: Block, known: Mapping[str, str]) -> Block:
    """Return a block with the values of another lab, without outputs."""
    for name in block.values:
        if name not in known:
            what = f"this lab has no value `{name}`; it has {', '.join(known)}"
            raise PageError(page.name, block.steps[0].line - 2, what)
    words = {old: known[name] for name, old in block.values.items()}
    steps = (Step(step.line, substitute(step.place, words), substitute(step.command, words)) for step in block.steps)
    return Block(tuple(steps), {name: known[name] for name in block.values}, block.fails)


def recorded(page: Page, lab: OnLab) -> tuple[Block, ...]:
    """Run the page's blocks and return them with new outputs; one round trip for consecutive commands of a machine.

    All blocks run, even after a failed one: the end of a page removes the page's objects from the node.
    """
    blocks = [bind_values(page, block, lab.values) for block in page.blocks]
    steps = [step for block in blocks for step in block.steps]
    for step in steps:
        if step.place not in lab.places:
            raise PageError(
                page.name, step.line, f"lab {lab.name} has no `{step.place}`", f"it has {', '.join(lab.places)}"
            )
    outputs: dict[int, Output] = {}
    for machine, some in groupby(steps, lambda step: lab.places[step.place][0]):
        outputs |= lab.run(machine, some)
    return tuple(
        replace(block, steps=tuple(_kept(page, step, outputs[step.line], block.fails) for step in block.steps))
        for block in blocks
    )


def _kept(page: Page, step: Step, output: Output, fails: bool) -> Step:
    lines = [line.rstrip() for line in output.out.rstrip().split("\n")] if output.out.strip() else []
    if (output.code != 0) != fails:
        why = "did not fail, as the page says" if fails else "\n  ".join([f"ended with {output.code}", *lines])
        raise PageError(page.name, step.line, f"`{step.prompt}` {why}", "nothing was written; try it by hand")
    for line in lines:
        if line == _END or _PROMPT.fullmatch(line):
            raise PageError(page.name, step.line, f"`{step.prompt}` prints `{line}`, which does not look like output")
    return replace(step, output=tuple(lines))


# Parts of outputs that differ between labs or between runs
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]{5}"  # the suffix of a pod's name
_MASKS = (
    (r"\[\d+:\d+\]", "[N:N]"),  # counters of a rule
    (r"(# Generated by .* on|# Completed on) .*", r"\1 DATE"),
    (r"\bveth[0-9a-f]{8}\b", "VETH"),
    (r"\bcni-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "NETNS"),
    (r"\b[0-9a-f]{64}\b", "CONTAINER"),
    (r"\bKUBE-SEP-[A-Z2-7]{16}\b", "KUBE-SEP-X"),
    (r"\bCNI-(DN|SN)-[0-9a-f]{21}\b", r"CNI-\1-X"),  # portmap's chains of one pod
    (r"\bCN=hoplab [a-z][a-z0-9-]*", "CN=hoplab LAB"),
    (rf"(-[0-9a-f]{{8,10}}|(?<=[a-z]))-{_RANDOM}\b", "-X"),
    (r"^\d+(?=: )|(?<=@if)\d+|(?<=link-netnsid )\d+", "N"),  # indexes
    (r"^(tcp|udp|icmp)(\s+\d+)\s+\d+", r"\1\2 N"),  # the timeout of a conntrack entry
    (r"\b(use|id|seq|mcast_n_groups)([ =])\d+", r"\1\2N"),
    (r"\d+(?= flow entries)", "N"),
    (r"(?<=time[= ])[\d.]+ ?(?=ms)|(?<== )[\d./]+(?= ms)|(?<=after )\d+(?= m)", "N "),
    (r"\b(\d+[dhms]){1,2}\b", "AGE"),
    (r"\b(Running|Completed)\s+\d+( \(.*?\))?", r"\1 N"),  # restarts
    (r"(?<=[(,])(\d+\.){3}\d+(?=:\d+[,)])", "ENDPOINT"),  # a list's; on which nodes is the scheduler's choice
    (r"\b(REACHABLE|STALE|DELAY|PROBE)\b", "LEARNED"),
    (r"(?<=[:=.])(?!(6443|8080|8472|9153|10250|3008[01])\b)\d{4,5}\b", "PORT"),  # a client's
    (r"\s+", " "),
)
_HEX = re.compile(r"(?<=\t)[0-9A-F]{8}(?=\t)")  # an address in /proc/net/route
_MAC = re.compile(r"\b(?!33:33|01:00:5e|01:80:c2|ff:ff:ff|00:00:00)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")
_ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
_BY_KEY = re.compile(r"(ip|bridge|ss|conntrack|cat /proc/net/route|\./lab kubectl)\b")  # unordered output


def comparable(line: str, setting: Setting) -> str:
    """Return a line without the parts that differ between two labs of one spec, or between two runs.

    Addresses of pods and services and MACs are numbered within the line, so that `A via A` is not `A via B`:
    `10.244.1.0/24 via 10.244.1.0 dev flannel.1` is `R1.0/24 via R1.0 dev flannel.1`.
    """
    seen: dict[str, list[str]] = {}

    def number(kind: str, what: str) -> str:
        known = seen.setdefault(kind, [])
        known += [] if what in known else [what]
        return f"{kind}{known.index(what) + 1}"

    def address(found: re.Match[str]) -> str:
        text, fixed = found[0], (setting.service_cidr[0], setting.api_service_ip, setting.dns_ip)
        try:
            given = IPv4Address(text)
        except AddressValueError:
            return text
        if given in setting.pod_cidr and found.string[found.end() :][:3] != f"/{setting.pod_cidr.prefixlen}":
            network, _, host = text.rpartition(".")
            known = host in {"0", "1", "255"}  # the ends of a node's range, and its gateway
            return f"{number('R', network)}.{host if known else number('P', text)}"
        return number("S", text) if given in setting.service_cidr and given not in fixed else text

    line = _MAC.sub(lambda found: number("M", found[0]), line)
    line = _HEX.sub(lambda found: str(IPv4Address(bytes.fromhex(found[0])[::-1])), line)
    for pattern, mask in _MASKS:
        line = re.sub(pattern, mask, line)
    return _ADDRESS.sub(address, line).rstrip()


def drifts(page: Page, blocks: Sequence[Block], setting: Setting) -> Iterator[str]:
    """Return a unified diff for every command with a different output; equal lines are shown as recorded."""

    def keys(block: Block, step: Step) -> list[str]:
        names = {value: name for name, value in block.values.items()}
        return [comparable(substitute(line, names), setting) for line in step.output]

    for old, new in zip(page.blocks, blocks, strict=True):
        for before, after in zip(old.steps, new.steps, strict=True):
            then, now = keys(old, before), keys(new, after)
            lines = dict(zip(reversed([*then, *now]), reversed([*before.output, *after.output]), strict=True))
            if _BY_KEY.match(after.command):
                then, now = sorted(set(then)), sorted(set(now))
            shown = [[lines[key] for key in some] for some in (then, now)]
            heads = f"{page.name}:{before.line + 1} {before.prompt}", f"now {after.prompt}"
            for one, other in (shown, (then, now)):  # the latter where equal texts differ in meaning
                if found := list(difflib.unified_diff(one, other, *heads, lineterm="")):
                    yield "\n".join(found)
                    break


@dataclass(frozen=True)
class OnLab:
    """The running lab of the commands."""

    session: LabSession
    name: str

    @cached_property
    def places(self) -> Mapping[str, tuple[str, Pod | None]]:
        """Return the machine of each place, and the pod."""
        names = [HOST, *(node.name for node in self.session.snapshot.nodes)]
        found: dict[str, tuple[str, Pod | None]] = {name: (name, None) for name in names}
        for pod in self.session.snapshot.pods:
            if pod.api.namespace == workload.NAMESPACE:
                app = pod.api.label("app")
                found[f"{pod.node.name}/{app}"] = found[app] = (pod.node.name, pod)
        return found

    @cached_property
    def values(self) -> Mapping[str, str]:
        """Return the values of pages; `home` is the node of the pod `single`, `away` another one; `app2-` likewise."""
        found = {"single": str(self.session.single.address)} | self._around(self.session.single)
        for pod in self.session.echo_pods:
            found[f"{pod.node.name}-echo"] = str(pod.address)
            found[f"{pod.node.name}-echo-veth"] = pod.host_end.name if pod.host_end else ""
        _, app2 = self.places.get(workload.APP2, ("", None))
        if app2:
            found |= {"app2": str(app2.address)} | self._around(app2, "app2-")
        return found | {
            f"{name}-service": str(self.session.service(name).cluster_ip) for name in ("echo", "single", "nobody")
        }

    def _around(self, pod: Pod, prefix: str = "") -> dict[str, str]:
        """Return the node of a pod, and another node."""
        away = [node for node in self.session.snapshot.nodes if node is not pod.node][:1]
        return {
            f"{prefix}{name}{suffix}": value
            for name, nodes in (("home", [pod.node]), ("away", away))
            for node in nodes
            for suffix, value in (("", node.name), ("-address", str(node.address)))
        }

    def run(self, machine: str, steps: Iterable[Step]) -> dict[int, Output]:
        """Return the outputs of commands on one machine by their lines, with both streams as on a terminal."""
        if machine == HOST:
            return {step.line: self._here(step.command) for step in steps}
        found = self.session.hosts.batch(machine, {str(step.line): self._there(step) for step in steps})
        return {int(line): output for line, output in found.items()}

    def _there(self, step: Step) -> str:
        command = shlex.join(["timeout", str(LIMIT), "bash", "-c", step.command])
        pod = self.places[step.place][1]
        return f"{traffic.in_pod(pod, command) if pod else command} </dev/null 2>&1"

    def _here(self, command: str) -> Output:
        environment = {**os.environ, "HOPLAB_LAB": self.name}
        script = f"exec </dev/null 2>&1; {command}"
        words = ["bash", "-c", script]
        ran = host_network.run_long(
            lambda: subprocess.run(words, cwd=PROJECT, env=environment, stdout=-1, text=True, check=False)
        )
        return Output(ran.returncode, ran.stdout)


def load() -> dict[Path, Page]:
    """Return every page of the learners."""
    found = [file for folder in FOLDERS for file in sorted(folder.glob("*.md"))]
    return {file: parse(os.path.relpath(file, PROJECT), file.read_text(encoding="utf-8")) for file in found}


def run(paths: LabPaths, *, check: bool = False, say: Callable[[str], None] = lambda _text: None) -> list[str]:
    """Run every command of every page on the running lab, write the pages and return their names.

    With ``check`` nothing is written: what is returned are the drifts.
    """
    pages, ran = load(), {}
    with session.opened(paths, say) as lab:
        there = OnLab(lab, paths.lab)
        for file, page in pages.items():
            say(page.name)
            ran[file] = recorded(page, there)
        setting = lab.snapshot.setting
    if check:
        return [text for file, page in pages.items() for text in drifts(page, ran[file], setting)]
    for file, page in pages.items():
        fs.write(file, written(page, ran[file]))
    return [page.name for page in pages.values() if page.blocks]
