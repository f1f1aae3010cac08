"""A program in the place of e2e.test: it lists specs, prints like Ginkgo, and writes Ginkgo's report.

What it does with a spec is in the name: "[FAIL]" and "[SKIP]" in it, "[HANG]" until a signal comes, "[DEAF]" for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hoplab.image.conformance import BuiltSuite

IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.66.1"
BASIC = "[sig-network] Services should serve a basic endpoint from pods [Conformance]"
MORE = f"{BASIC} [Serial]"  # begins with the name of another one
NODE_PORT = "[sig-network] Services should be able to create a functioning NodePort service [FAIL] [Conformance]"
SKIPPED = "[sig-network] Networking should work with two nodes [SKIP]"
HANGING = "[sig-network] DNS should hang [HANG]"
DEAF = "[sig-network] DNS should hang [HANG] [DEAF]"
POLICY = "[sig-network] Netpol NetworkPolicy between server and client should deny [Feature:NetworkPolicy]"
STORAGE = "[sig-storage] Volumes should mount [Conformance]"
NAMES = (BASIC, MORE, NODE_PORT, SKIPPED, HANGING, DEAF, POLICY, STORAGE)

PROGRAM = r"""#!{python}
import json, re, signal, sys, time

NAMES = {names!r}
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
if "list-images" in options:
    print("{image}\nregistry.k8s.io/pause:3.10.2")
    sys.exit()
if "list-tests" in options:
    print("The following spec names can be used with 'ginkgo run --focus/skip':")
    print("".join(f"    network/file.go:12: {{name}}\n" for name in NAMES))
    sys.exit()
if {broken!r}:
    print({broken!r})
    sys.exit(1)

stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
wanted = re.compile(options["ginkgo.focus"])
chosen = [name for name in NAMES if wanted.search(f"Kubernetes e2e suite {{name}}")]
print(f"Will run {{len(chosen)}} of {{len(NAMES)}} specs\n" + "-" * 30 + "\n[SynchronizedBeforeSuite] \nS", flush=True)
specs = []
for name in NAMES:
    spec = dict(
        ContainerHierarchyTexts=[name.partition(" should")[0]], LeafNodeType="It", State="skipped", RunTime=0,
        LeafNodeText="should" + name.partition(" should")[2], StartTime="0001-01-01T00:00:00Z", Failure=dict(),
    )
    specs.append(spec)
    if name not in chosen or stopped:
        continue
    print("-" * 30 + f"\n{{name}}\nk8s.io/kubernetes/test/e2e/network/file.go:12")
    print("  STEP: doing it @ 11/29/26 15:20:01.123", flush=True)
    while "[HANG]" in name and (not stopped or "[DEAF]" in name):
        time.sleep(0.02)
    spec["StartTime"] = f"2026-11-29T15:20:{{len(specs):02d}}Z"
    spec["RunTime"] = 1_500_000_000
    spec["State"], header = ("passed", "•")
    if "[FAIL]" in name or "[HANG]" in name:
        state = "interrupted" if stopped else "failed"
        spec["State"], header = state, f"• [{{state.upper()}}]"
        spec["Failure"] = dict(
            Message="timed out:\n  no answer",
            Location=dict(FileName="k8s.io/kubernetes/test/e2e/network/file.go", LineNumber=14),
        )
    if "[SKIP]" in name:
        spec["State"], header = "skipped", "S [SKIPPED]"
        spec["Failure"] = dict(Message="needs two nodes")
    print(f"{{header}} [1.500 seconds]", flush=True)
with open(options["ginkgo.json-report"], "w") as file:
    json.dump([dict(SuitePath="/", SpecReports=[
        dict(LeafNodeType="SynchronizedBeforeSuite", LeafNodeText="", State="passed", RunTime=0,
             ContainerHierarchyTexts=None, StartTime="0001-01-01T00:00:00Z"), *specs])], file)
sys.exit(any(spec["State"] in ("failed", "interrupted") for spec in specs))
"""


def suite(folder: Path, broken: str = "") -> BuiltSuite:
    """Write the program into a folder; return it as a built suite. A ``broken`` one only prints this and fails."""
    program = folder / "e2e.test"
    program.write_text(PROGRAM.format(python=sys.executable, names=NAMES, image=IMAGE, broken=broken))
    program.chmod(0o755)
    archive = folder / "images.tar"
    archive.write_bytes(b"archive")
    return BuiltSuite("1.37.2", program, archive, {IMAGE: "sha256:aa"})
