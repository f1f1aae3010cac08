"""Entries of eBPF: programs at interfaces, and Cilium's maps of services, addresses and policies; pure.

Numbers of the moment are left out: of programs, of backends' slots, of identities and endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hoplab.observe.facts.bpf_programs import Program
from hoplab.observe.facts.cilium_ipcache import Owner
from hoplab.observe.facts.cilium_services import Frontend
from hoplab.verify.changes.entry import Entry


def programs(found: Iterable[Program]) -> Iterator[Entry]:
    for program in found:
        yield Entry("program", (program.dev, program.hook, program.name), {}, str(program))


def services(found: Iterable[Frontend]) -> Iterator[Entry]:
    for frontend in found:
        key = (str(frontend.address), str(frontend.port), frontend.protocol, str(frontend.internal))
        fields = {
            "kind": frontend.kind,
            "flags": ", ".join(frontend.flags),
            "backends": ", ".join(sorted(backend.to for backend in frontend.backends)),
        }
        name = str(frontend).partition(":")[0] + f":{frontend.port}"
        yield Entry("service in Cilium's map", key, fields, str(frontend), name)


def owners(found: Iterable[Owner]) -> Iterator[Entry]:
    for owner in found:
        fields = {"behind": str(owner.tunnel or "")}
        yield Entry("address in Cilium's map", (str(owner.range),), fields, str(owner), str(owner.range))
