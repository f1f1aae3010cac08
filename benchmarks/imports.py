"""How many modules the quick verbs import: a measure of their start that is the same on every machine.

python -m benchmarks.imports
"""

from __future__ import annotations

import re
import subprocess
import sys

QUICK = (("--help",), ("version",), ("status", "--lab", "no-such-lab"))
_LINE = re.compile(r"import time: +\d+ \| +\d+ \| +(\S+)")


def imported_by(*words: str) -> frozenset[str]:
    """Return the names of the modules that `./lab WORDS` imports, Python's own start included."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hoplab", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return frozenset(_LINE.findall(done.stderr))


def main() -> None:
    """Print the number of modules that each quick verb imports, ours and all."""
    for words in QUICK:
        modules = imported_by(*words)
        ours = [name for name in modules if name.partition(".")[0] == "hoplab"]
        print(f"./lab {' '.join(words):<28} {len(modules):>5} modules, {len(ours)} of them hoplab's")


if __name__ == "__main__":
    main()
