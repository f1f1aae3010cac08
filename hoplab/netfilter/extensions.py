"""The table of iptables' extensions, as iptables-extensions(8) describes them: targets and matches; pure.

A target ends the walk of its table, or the next rule is evaluated, or that is not known beforehand. The option of a
match is evaluated on a packet, decides nothing, or depends on more than the packet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from ipaddress import ip_address

from hoplab.core.ip import IPAddress
from hoplab.netfilter import address_sets
from hoplab.netfilter.packet import Packet, any_of, port_in
from hoplab.observe.facts.iptables import Option, Rule, address_and_mask


class Effect(Enum):
    """The effect of a target on the walk through a table."""

    ENDS = "its verdict is final for this table"
    CONTINUES = "the next rule is evaluated"
    OPEN = "something else decides: a program, or state outside of the packet"


_E, _C, _O = Effect.ENDS, Effect.CONTINUES, Effect.OPEN
TARGETS: Mapping[str, Effect] = {
    "": _C,
    **dict.fromkeys(("ACCEPT", "DROP", "REJECT"), _E),
    **dict.fromkeys(("DNAT", "MASQUERADE", "NETMAP", "REDIRECT", "SNAT", "TPROXY"), _E),
    **dict.fromkeys(("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DNPT", "DSCP", "ECN"), _C),
    **dict.fromkeys(("HL", "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK"), _C),
    **dict.fromkeys(("SET", "SNPT", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"), _C),
    **dict.fromkeys(("CLUSTERIP", "NFQUEUE", "QUEUE", "SYNPROXY"), _O),
    # of xtables-addons
    **dict.fromkeys(("DELUDE", "STEAL", "TARPIT"), _E),
    **dict.fromkeys(("ACCOUNT", "IPMARK", "LOGMARK"), _C),
}
DROPS = frozenset({"DROP", "REJECT", "DELUDE", "STEAL", "TARPIT"})  # the packet does not arrive

Test = Callable[[Option, Packet], bool | None]  # whether the option holds without its "!"; None: not known

PROTOCOLS = {
    **{"icmp": 1, "ipencap": 4, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51},
    **{"ipv6-icmp": 58, "icmpv6": 58, "sctp": 132, "udplite": 136},
}


def protocol_number(name: str) -> int | str:
    """Return the number of a protocol; a name that is not known as it is.

    >>> protocol_number("ipv6-icmp"), protocol_number("4"), protocol_number("lisp")
    (58, 4, 'lisp')
    """
    return PROTOCOLS.get(name, int(name) if name.isdecimal() else name)


def in_network(text: str, address: IPAddress) -> bool:
    """Return whether an address is in a range, also one whose mask is no prefix; raise ValueError for another text."""
    version, network, mask = address_and_mask(text)
    return version == address.version and int(address) & mask == network & mask


def in_range(low: IPAddress, high: IPAddress, address: IPAddress) -> bool:
    return low.version == address.version and int(low) <= int(address) <= int(high)


def _ports(text: str) -> Iterator[range]:
    for part in text.split(","):
        low, colon, high = part.partition(":")
        yield range(int(low or 0), int(high or 65535) + 1 if colon else int(low) + 1)


def _to_port(option: Option, packet: Packet) -> bool | None:
    return any_of(port_in(ports, packet.dport) for ports in _ports(option.values[0]))


def _from_port(option: Option, packet: Packet) -> bool | None:
    return any_of(port_in(ports, packet.sport) for ports in _ports(option.values[0]))


def _either_port(option: Option, packet: Packet) -> bool | None:
    return any_of((_to_port(option, packet), _from_port(option, packet)))


def _address_range(text: str, address: IPAddress) -> bool:
    low, _, high = text.partition("-")
    return in_range(ip_address(low), ip_address(high or low), address)


def _device(option: Option, name: str) -> bool:
    wanted = option.values[0]
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _masked(option: Option, mark: int) -> bool:
    """Return whether ``--mark 0x4000/0x4000`` holds: below the mask, the packet's mark equals the value."""
    value, _, mask = option.values[0].partition("/")
    return mark & int(mask or "0xffffffff", 16) == int(value, 16)


def _connmark(option: Option, packet: Packet) -> bool | None:
    if packet.state == "NEW":
        return _masked(option, packet.connmark)
    return None if packet.tracked else option.negated  # without a connection it does not hold, negated or not


def _address_type(option: Option, address: IPAddress, local: bool) -> bool | None:
    kind = "LOCAL" if local else "MULTICAST" if address.is_multicast else "UNICAST"
    wanted = option.values[0].split(",")
    return kind in wanted or (None if set(wanted) & {"BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW"} else False)


def _state(option: Option, packet: Packet) -> bool | None:
    wanted = option.values[0].split(",")
    if packet.state in wanted or (packet.status.upper() or "-") in wanted:  # DNAT is a state too
        return True
    return None if "SNAT" in wanted and packet.state != "NEW" else False


def _direction(option: Option, packet: Packet) -> bool | None:
    if packet.state == "NEW":
        return option.values[0] == "ORIGINAL"
    return None if packet.tracked else option.negated


FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}


def tcp_flags(packet: Packet) -> int | None:
    """Return the flags of a TCP packet: SYN alone opens a connection; of a later packet they are not known."""
    return FLAGS["SYN"] if packet.state == "NEW" else None


def _flags(option: Option, packet: Packet) -> bool | None:
    looked_at, wanted = (sum({FLAGS[flag.upper()] for flag in text.split(",")}) for text in option.values[:2])
    found = tcp_flags(packet)
    return None if found is None else found & looked_at == wanted


def _socket(_option: Option, packet: Packet) -> bool | None:
    """Return whether the socket of a packet has such an owner: a packet that arrived has no socket."""
    return False if packet.in_dev else None


def _recent(_option: Option, packet: Packet) -> bool | None:
    """Return whether a list of recent clients has the sender; kube-proxy's session affinity."""
    return None if packet.known else False


def _icmp_type(option: Option, packet: Packet) -> bool | None:
    """Return whether a type of ICMP is that of ``--icmp-type 8``, ``3/1`` (with a code) or ``any``."""
    wanted, _, code = option.values[0].partition("/")
    if wanted == "any":
        return True
    if packet.icmp_type is None:
        return None
    return packet.icmp_type == int(wanted) and int(code or 0) == 0  # echo requests and replies have the code 0


def _silent(option: Option, _packet: Packet) -> bool:
    """Return what makes the option hold, negated or not: it decides nothing."""
    return not option.negated


def _unknown(_option: Option, _packet: Packet) -> None:
    return None


_PORTS: Mapping[str, Test] = {"--sport": _from_port, "--dport": _to_port}
MATCHES: Mapping[str, Mapping[str, Test]] = {
    "": {
        "-s": lambda option, packet: in_network(option.values[0], packet.src),
        "-d": lambda option, packet: in_network(option.values[0], packet.dst),
        "-p": lambda option, packet: (
            option.values[0] == "all" or protocol_number(option.values[0]) == protocol_number(packet.protocol)
        ),
        "-i": lambda option, packet: _device(option, packet.in_dev),
        "-o": lambda option, packet: _device(option, packet.out_dev),
        "-f": lambda _option, _packet: False,  # a second or later fragment: conntrack puts them together before
    },
    "addrtype": {
        "--dst-type": lambda option, packet: _address_type(option, packet.dst, packet.dst_is_local),
        "--src-type": lambda option, packet: _address_type(option, packet.src, packet.src_is_local),
    },
    "comment": {"--comment": _silent},
    "connmark": {"--mark": _connmark},
    "conntrack": {
        "--ctstate": _state,
        "--ctdir": _direction,
        "--ctproto": lambda option, packet: protocol_number(option.values[0]) == protocol_number(packet.protocol),
    },
    "dccp": _PORTS,
    "icmp": {"--icmp-type": _icmp_type},
    "icmp6": {"--icmpv6-type": _icmp_type},
    "iprange": {
        "--src-range": lambda option, packet: _address_range(option.values[0], packet.src),
        "--dst-range": lambda option, packet: _address_range(option.values[0], packet.dst),
    },
    "mark": {"--mark": lambda option, packet: _masked(option, packet.mark)},
    "multiport": {
        "--sports": _from_port,
        "--source-ports": _from_port,
        "--dports": _to_port,
        "--destination-ports": _to_port,
        "--ports": _either_port,
    },
    "nfacct": {"--nfacct-name": _silent},
    "owner": dict.fromkeys(("--uid-owner", "--gid-owner", "--socket-exists"), _socket),
    "physdev": {
        "--physdev-in": lambda option, packet: _device(option, packet.port_in),
        "--physdev-out": lambda option, packet: _device(option, packet.port_out),
        "--physdev-is-in": lambda _option, packet: bool(packet.port_in),
        "--physdev-is-out": lambda _option, packet: bool(packet.port_out),
        "--physdev-is-bridged": lambda _option, packet: packet.bridged,
    },
    "pkttype": {
        "--pkt-type": lambda option, packet: option.values[0] == ("multicast" if packet.dst.is_multicast else "unicast")
    },
    "policy": {
        "--pol": lambda option, _packet: option.values[0] == "none",  # no packet here is of IPsec
        **dict.fromkeys(("--dir", "--strict", "--mode", "--proto"), _silent),
    },
    "recent": {
        **dict.fromkeys(("--rcheck", "--update", "--remove"), _recent),
        **dict.fromkeys(
            ("--set", "--seconds", "--reap", "--hitcount", "--name", "--mask", "--rsource", "--rdest"), _silent
        ),
        "--rttl": _silent,
    },
    "rpfilter": dict.fromkeys(("--loose", "--validmark", "--accept-local", "--invert"), _silent),  # see `matches`
    "sctp": _PORTS,
    "socket": {"--transparent": lambda _option, _packet: False},  # that of a proxy; no packet here has one
    "set": {
        "--match-set": address_sets.contain,
        "--update-counters": _silent,
        "--update-subcounters": _silent,
    },
    "state": {"--state": _state},
    "statistic": {"--mode": _silent},  # the rest is chance
    "tcp": {**_PORTS, "--tcp-flags": _flags},
    "udp": _PORTS,
    "udplite": _PORTS,
    # these decide by the bytes of a packet, by a rate, a clock or tables of the kernel
    **{
        name: {}
        for name in (
            *(
                "ah",
                "bpf",
                "cgroup",
                "cluster",
                "connbytes",
                "connlabel",
                "connlimit",
                "cpu",
                "devgroup",
                "dscp",
                "dst",
            ),
            *("ecn", "esp", "eui64", "frag", "hashlimit", "hbh", "helper", "hl", "ipcomp", "ipv6header", "ipvs"),
            *("length", "limit", "mac", "mh", "osf", "quota", "rateest", "realm", "rt", "srh"),
            *("string", "tcpmss", "time", "tos", "ttl", "u32"),
        )
    },
}
_BY_OPTION = {name: test for tests in MATCHES.values() for name, test in tests.items()}  # of an option without module
_WITHOUT_OPTIONS_UNKNOWN = frozenset({"socket"})  # matches that decide although none of their options is given


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Return whether the rule matches; None when that depends on more than the packet."""
    unsure = False
    for option in rule.matches:
        holds = _module_holds(rule, option, packet) if option.name == "-m" else _holds(option, packet)
        if holds is None:
            unsure = True
        elif holds == option.negated:
            return False
    return None if unsure else True


def _module_holds(rule: Rule, option: Option, packet: Packet) -> bool | None:
    """Return whether a match holds as far as its options do not say."""
    name = option.values[0] if option.values else ""
    if name == "rpfilter":
        inverted = any(part.name == "--invert" for part in rule.matches if part.module == name)
        return None if packet.reverse_path is None else packet.reverse_path != inverted
    return True if name in MATCHES and name not in _WITHOUT_OPTIONS_UNKNOWN else None


def _holds(option: Option, packet: Packet) -> bool | None:
    test = MATCHES.get(option.module, {}).get(option.name) if option.module else _BY_OPTION.get(option.name)
    try:
        return test(option, packet) if test else None
    except (ValueError, IndexError, KeyError):  # values that the option does not have by its manual
        return None


def chance(rule: Rule) -> float | None:
    """Return the probability of a match of the module statistic; None for a rule without it."""
    for option in rule.matches:
        if option.name == "--probability" and re.fullmatch(r"[01]?\.?\d+", "".join(option.values)):
            return float(option.values[0])
        if option.name == "--every" and "".join(option.values).isdecimal():
            return 1 / max(1, int(option.values[0]))
    return None
