"""A page for learners and a lab whose commands print what they are told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from hoplab.devtools.pages import OnLab, Page, parse
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from tests.support.recordings import recording

RECORDED = recording("flannel-vxlan")
PAGE = """# Routes

<!-- lab: worker2-echo=10.9.9.9 -->
```console
worker1# ip route get 10.9.9.9
10.9.9.9 via somewhere
worker1/echo# echo a; \\
  echo b
worker2# true
```

worker1# is no command here.

<!-- lab: fails -->
```console
worker1# false
```

```sh
worker1# nor here
```
"""


@dataclass
class Nodes:
    """Hosts whose commands print what they are told to, by default one line."""

    says: Callable[[str, str], Output] = lambda _node, _command: Output(0, "ok\n")
    batches: list[tuple[str, int]] = field(default_factory=list)

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        self.batches.append((node, len(commands)))
        return {key: self.says(node, command) for key, command in commands.items()}

    def lab(self) -> OnLab:
        nothing: Any = None
        return OnLab(LabSession(RECORDED, cast("Hosts", self), cast("ExternalHost", nothing), nothing, nothing), "blue")


def failing(node: str, command: str) -> Output:
    return Output(1 if "false" in command else 0, f"{node} did it  \n\nreally\t\n")


LAB = Nodes().lab()


def page(text: str = PAGE) -> Page:
    return parse("docs/x.md", text)


def block_text(prompt: str, output: list[str], values: Mapping[str, str]) -> str:
    comment = f"<!-- lab: {' '.join(f'{name}={value}' for name, value in values.items())} -->\n" if values else ""
    return comment + "\n".join(["```console", prompt, *output, "```"])
