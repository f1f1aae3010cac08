"""kube-network-policies: a rule of nftables hands the first packet of a connection to a program, which decides.

Its table has the addresses of the node's pods that a policy selects. What goes to one of them or comes from one waits
in a queue of the kernel until the program has compared it with the policies. Packets of established connections pass
before that. Whom a policy allows is in the program alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from hoplab.expectations.policy.enforcer import Admission, Direction
from hoplab.netfilter.ruleset import HasFacts
from hoplab.observe.facts.nfqueue import NFQUEUE, PacketQueue
from hoplab.observe.facts.nft_expressions import Match, Queue
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import Chain, Rule, Table
from hoplab.observe.snapshot import Pod
from hoplab.spec.parts import PolicyPart

PART = PolicyPart(
    name="kube-network-policies", daemons=("kube-network-policies",), nft_tables=("inet kube-network-policies",)
)
FACTS = (NFT_RULESET, NFQUEUE)

FAMILY, _, TABLE = PART.nft_tables[0].partition(" ")
CHAIN = "postrouting"
PRIORITY = 95  # srcnat - 5: a Service's address is a pod's already, and the sender's is still its own
QUEUE = 98
KEYS: Mapping[Direction, str] = {"to": "ip daddr", "from": "ip saddr"}  # what a rule compares with the set of addresses
SET = "podips-v4"


def table(host: HasFacts) -> Table | None:
    """Return its table on a node; None where there is none."""
    return host[NFT_RULESET].table(TABLE, FAMILY)


def chain(host: HasFacts) -> Chain | None:
    """Return the base chain of its table; None where there is none."""
    found = table(host)
    return found.chains.get(CHAIN) if found else None


def queueing(host: HasFacts, direction: Direction) -> tuple[Rule, ...]:
    """Return the rules that queue what goes to or comes from the addresses of its set."""
    found = chain(host)
    wanted = ((KEYS[direction],), (f"@{SET}",))
    return tuple(
        rule
        for rule in (found.rules if found else ())
        if any(isinstance(part, Queue) for part in rule.expressions)
        and any(isinstance(part, Match) and (part.key, part.values) == wanted for part in rule.expressions)
    )


def queue_of(rule: Rule) -> Queue | None:
    """Return the queue that a rule names."""
    return next((part for part in rule.expressions if isinstance(part, Queue)), None)


def reader(host: HasFacts, number: str) -> PacketQueue | None:
    """Return a queue that a program reads; None where no program does."""
    return next((queue for queue in host[NFQUEUE] if str(queue.number) == number), None)


def place(_pod: Pod, _direction: Direction) -> str:
    """Return its table and chain, which are the same for all pods."""
    return f"{FAMILY} {TABLE}, chain {CHAIN},"


def stopping(host: HasFacts, pod: Pod, direction: Direction) -> tuple[Rule, ...]:
    """Return the rules that queue what goes to or comes from a pod, where its address is in the set."""
    found = table(host)
    named = found.sets.get(SET) if found else None
    return queueing(host, direction) if named and named.find(pod.address) else ()


def stopped(host: HasFacts, pod: Pod, direction: Direction) -> int:
    """Return the number of packets that went to the program, whatever it decided."""
    numbers = {queue.number for rule in queueing(host, direction) if (queue := queue_of(rule))}
    return sum(read.packets for number in numbers if (read := reader(host, number)))


def admission(host: HasFacts, pod: Pod, _policy: str) -> Admission | None:
    """Return the program that reads the queue of the pod's rule."""
    for rule in stopping(host, pod, "to"):
        queue = queue_of(rule)
        if queue and reader(host, queue.number):
            return Admission(f"the program that reads queue {queue.number}")
    return None
