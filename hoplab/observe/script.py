"""Many commands as one shell script, and the split of its output; pure.

The script prints marks between the outputs, so all commands together cost one round trip.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hoplab.observe import grouping

PROLOGUE = """export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export err=/run/hoplab-err.$$; trap 'rm -f $err' EXIT"""  # of a shell, before its first script


@dataclass(frozen=True)
class Output:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str = ""


class Script:
    """A shell script that runs commands and marks the output of each, in a shell with PROLOGUE; pure."""

    def __init__(self, commands: Mapping[str, str], in_pods: Mapping[str, str]) -> None:
        self.mark = f"@{secrets.token_hex(8)}"  # random, so that no command prints it
        self.end = f"{self.mark} done"
        self._commands = commands
        self._in_pods = in_pods
        groups = (*grouping.groups(commands), *grouping.groups(in_pods))
        self._groups = {group.key: group for group in groups}

    @cached_property
    def text(self) -> str:
        """Return the script; errors of a command follow its output, so both come back in one stream."""
        body = self._lines("", self._commands)
        if self._in_pods:
            inner = "\n".join([*self._head(), *self._lines("$1/", self._in_pods)])
            body += [
                f"inner={shlex.quote(inner)}",
                "for ns in /run/netns/cni-*; do",
                '[ ! -e "$ns" ] || nsenter --net="$ns" sh -c "$inner" sh "${ns##*/}"',
                "done",
            ]
        return "\n".join([*self._head(), *body, f"echo '{self.end}'"])

    def _head(self) -> list[str]:
        return [
            "end() { code=$?; printf '\\n%s %s %s\\n' '" + self.mark + '\' $code "$1"',
            f"[ ! -s $err ] || cat $err; echo '{self.mark}'; }}",
        ]

    def _lines(self, prefix: str, commands: Mapping[str, str]) -> list[str]:
        """Return the lines that run the commands: in groups where that is possible, each for itself where one fails."""
        lines, rest = [], dict(commands)
        for group in grouping.groups(commands):
            alone = {name: rest.pop(name) for name in group.keys}
            lines += [
                f"if found=$(exec 2>$err\n{group.command}\n); then",
                *self._one(prefix, group.key, """printf '%s\\n' "$found\""""),
                *("else", *(line for name, command in alone.items() for line in self._one(prefix, name, command))),
                "fi",
            ]
        return lines + [line for name, command in rest.items() for line in self._one(prefix, name, command)]

    def _one(self, prefix: str, key: str, command: str) -> list[str]:
        return [f'{{ {grouping.cheap(command)}\n}} 2>$err; end "{prefix}{key}"']

    def split(self, printed: str) -> dict[str, Output]:
        """Return the outputs by key from the output of the script."""
        mark = re.escape(self.mark)
        pattern = rf"(.*?)\n{mark} (\d+) (\S+)\n(.*?){mark}\n"
        found = {}
        for out, code, key, err in re.findall(pattern, printed, flags=re.DOTALL):
            prefix, slash, name = key.rpartition("/")
            group = self._groups.get(name)
            outs = group.split(out) if group else {name: out}
            found.update({f"{prefix}{slash}{name}": Output(int(code), out, err) for name, out in outs.items()})
        return found
