"""Expressions of nftables rules, typed as far as kube-proxy's rules need it; pure.

``str()`` of an expression is its text in nft's output. An unknown expression is kept as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """``accept``, ``drop``, ``return``, ``goto services``, ..."""

    kind: str
    chain: str = ""  # of jump and goto

    def __str__(self) -> str:
        return f"{self.kind} {self.chain}".rstrip()


@dataclass(frozen=True)
class Element:
    """One element of a set, or of a map with its value."""

    key: tuple[str, ...]  # ("10.96.0.10", "udp", "53")
    value: Verdict | tuple[str, ...] | None = None  # of a map: a verdict, or data such as ("10.244.0.2", "53")
    comment: str = ""

    def __str__(self) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        value = "" if self.value is None else f" : {_joined(self.value)}"
        return f"{_joined(self.key)}{comment}{value}"


@dataclass(frozen=True)
class Lookup:
    """A lookup of a key in a map: ``ip daddr . meta l4proto . th dport``, ``numgen random mod 2``."""

    key: tuple[str, ...]
    map: str = ""  # "service-ips"; "" for an anonymous map
    elements: tuple[Element, ...] = ()

    def words(self, verb: str) -> str:
        found = f"@{self.map}" if self.map else f"{{ {', '.join(str(element) for element in self.elements)} }}"
        return f"{_joined(self.key)} {verb} {found}"


@dataclass(frozen=True)
class Vmap(Lookup):
    """A verdict map, which gives the verdict on a packet: ``ip daddr . meta l4proto . th dport vmap @service-ips``."""

    def __str__(self) -> str:
        return self.words("vmap")


@dataclass(frozen=True)
class Match:
    """A condition on a packet: ``ip saddr != 10.244.0.0/16``, ``ip daddr @cluster-ips``."""

    key: tuple[str, ...]
    op: str  # "==", "!=", "<", ...; "in" when any of the bits matches
    values: tuple[str, ...]  # any of them matches; a named set is "@cluster-ips"

    def __str__(self) -> str:
        op = {"==": "== " if "&" in self.key[0] else "", "in": ""}.get(self.op, f"{self.op} ")
        if self.op == "in":
            values = ",".join(self.values)
        else:
            values = self.values[0] if len(self.values) == 1 else f"{{ {', '.join(self.values)} }}"
        return f"{_joined(self.key)} {op}{values}"


@dataclass(frozen=True)
class Mark:
    """A change of the packet's mark: ``meta mark set meta mark | 0x4000``, ``... meta mark & 0xff00ffff | 0x40000``."""

    value: int
    op: str = ""  # "|", "&" or "^" with the present mark; "" for a new value
    mask: int | None = None  # of the present mark, before that

    def applied(self, mark: int) -> int:
        """Return the mark that it makes of a mark."""
        kept = mark if self.mask is None else mark & self.mask
        return {"|": kept | self.value, "&": kept & self.value, "^": kept ^ self.value}.get(self.op, self.value)

    def __str__(self) -> str:
        mask = "" if self.mask is None else f"& {self.mask:#x} "
        return f"meta mark set {f'meta mark {mask}{self.op} ' if self.op else ''}{self.value:#x}"


@dataclass(frozen=True)
class Nat:
    """``dnat to 10.244.1.3:8080``, ``dnat ip to numgen random mod 2 map { 0 : 10.244.0.2 . 53, ...``, ``masquerade``"""

    kind: str  # "dnat", "snat", "redirect", "masquerade"
    address: str = ""
    port: str = ""
    chosen: Lookup | None = None  # a lookup of address and port
    flags: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[tuple[str, ...], ...]:
        """Return every possible new destination, address and port where given: ``(("10.244.1.3", "8080"),)``"""
        if self.chosen:
            return tuple(element.value for element in self.chosen.elements if isinstance(element.value, tuple))
        return (tuple(word for word in (self.address, self.port) if word),) if self.address or self.port else ()

    def __str__(self) -> str:
        to = f"{self.address}{f':{self.port}' if self.port else ''}"
        words = f"ip to {self.chosen.words('map')}" if self.chosen else f"to {to}" if to else ""
        return " ".join(word for word in (self.kind, words, ",".join(self.flags)) if word)


@dataclass(frozen=True)
class Reject:
    """An error to the sender: ``reject with icmp port-unreachable``, the default, which nft does not print."""

    how: str = ""  # "icmp port-unreachable", "tcp reset"

    def __str__(self) -> str:
        return "reject" if self.how in ("", "icmp port-unreachable") else f"reject with {self.how}"


@dataclass(frozen=True)
class Counter:
    """A counter; a comparison of two rules ignores its values."""

    name: str = ""  # of a named counter, which rules share
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f'counter name "{self.name}"' if self.name else f"counter packets {self.packets} bytes {self.bytes}"


@dataclass(frozen=True)
class Remember:
    """A dynamic set update from the packet: ``update @affinity-33OLLWVQ-... { ip saddr }``."""

    op: str  # "add", "update"
    set: str
    key: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op} @{self.set} {{ {_joined(self.key)} }}"


@dataclass(frozen=True)
class Queue:
    """``queue to 98``: a program decides on the packet. Without one that reads the queue, the kernel drops it."""

    number: str  # "98"; "1-3" with the flag fanout
    flags: tuple[str, ...] = ()  # "bypass": without a program the packet passes

    @property
    def bypass(self) -> bool:
        return "bypass" in self.flags

    def __str__(self) -> str:
        flags = ",".join(self.flags)
        return f"queue {f'flags {flags} ' if flags else ''}to {self.number}"


@dataclass(frozen=True)
class Other:
    """An expression that hoplab does not evaluate, as JSON or, where it has a text, as nft prints it."""

    raw: str
    kind: str = field(default="", compare=False)  # its key: "limit", "log", "xt"
    target: str = field(default="", compare=False)  # "DROP": of a rule of iptables-nft
    printed: str = field(default="", compare=False)  # "limit rate 10/second burst 5 packets"

    def __str__(self) -> str:
        return self.printed or self.raw


Expression = Match | Vmap | Verdict | Mark | Nat | Reject | Queue | Counter | Remember | Other


def elements(raw: Any) -> tuple[Element, ...]:
    """Return the elements of a set, ``["10.96.0.1", ...]``, or of a map, ``[[key, value], ...]``."""
    return tuple(_element(item) for item in raw) if isinstance(raw, list) else ()


def _element(raw: Any) -> Element:
    match raw:
        case [key, value]:
            return replace(_element(key), value=_verdict(value) or _parts(value))
        case {"elem": {"val": key, **rest}}:
            return Element(_parts(key), comment=text(rest.get("comment", "")))
        case _:
            return Element(_parts(raw))


def expression(raw: dict[str, Any]) -> Expression:
    match raw:
        case {"match": {"op": str(op), "left": left, "right": right}}:
            key = _parts(left)
            return Match(key, op, _values(right, hexadecimal="mark" in key[0]))
        case {"vmap": {"key": key, "data": data}}:
            return Vmap(*_lookup(key, data))
        case {"reject": {"type": str(kind), **rest}}:
            return Reject(f"{kind} {text(rest.get('expr', ''))}".rstrip())
        case {"reject": None}:
            return Reject()
        case {"queue": {"num": number, **rest}} if not set(rest) - {"flags"}:
            return Queue(text(number), _values(rest["flags"]) if "flags" in rest else ())
        case {"counter": {"packets": int(packets), "bytes": int(size)}}:
            return Counter("", packets, size)
        case {"counter": str(name)}:
            return Counter(name)
        case {"set": {"op": "add" | "update" as op, "elem": key, "set": str(name)}}:
            return Remember(op, name.removeprefix("@"), _parts(key))
        case _:
            return _verdict(raw) or _mark(raw) or _nat(raw) or _other(raw)


def _other(raw: dict[str, Any]) -> Other:
    match raw:
        case {"xt": {"type": "target", "name": str(name)}}:
            return Other(json.dumps(raw), "xt", name)
        case {"limit": {"rate": int(rate), "per": str(per), "burst": int(burst), **rest}} if not set(rest) - {"inv"}:
            over = "over " if rest.get("inv") is True else ""
            return Other(json.dumps(raw), "limit", printed=f"limit rate {over}{rate}/{per} burst {burst} packets")
        case {"log": None}:
            return Other(json.dumps(raw), "log", printed="log")
        case {"log": {"prefix": str(prefix), **rest}} if not rest:
            return Other(json.dumps(raw), "log", printed=f'log prefix "{prefix}"')
        case _:
            return Other(json.dumps(raw), next(iter(raw), ""))


def _verdict(raw: Any) -> Verdict | None:
    match raw:
        case {"jump": {"target": str(chain)}}:
            return Verdict("jump", chain)
        case {"goto": {"target": str(chain)}}:
            return Verdict("goto", chain)
        case {"accept": None} | {"drop": None} | {"return": None} | {"continue": None}:
            return Verdict(next(iter(raw)))
        case _:
            return None


def _lookup(key: Any, data: Any) -> tuple[tuple[str, ...], str, tuple[Element, ...]]:
    """Return the key, the map's name and the elements of a Lookup."""
    match data:
        case str(name):
            return _parts(key), name.removeprefix("@"), ()
        case {"set": held}:
            return _parts(key), "", elements(held)
        case _:
            return _parts(key), text(data), ()


def _mark(raw: Any) -> Mark | None:
    match raw:
        case {"mangle": {"key": {"meta": {"key": "mark"}}, "value": int(value)}}:
            return Mark(value)
        case {"mangle": {"key": {"meta": {"key": "mark"}}, "value": dict(changed)}}:
            for op, operands in changed.items():
                match operands:
                    case [{"meta": {"key": "mark"}}, int(value)] if op in _BITWISE:
                        return Mark(value, op)
                    case [{"&": [{"meta": {"key": "mark"}}, int(mask)]}, int(value)] if op in _BITWISE:
                        return Mark(value, op, mask)
    return None


def _nat(raw: dict[str, Any]) -> Nat | None:
    kind, given = next(iter(raw.items()), ("", None))
    if kind not in ("dnat", "snat", "redirect", "masquerade"):
        return None
    match given:
        case None:
            return Nat(kind)
        case {"addr": {"map": {"key": key, "data": data}}, **rest}:
            return Nat(kind, chosen=Lookup(*_lookup(key, data)), flags=_values(rest.get("flags", [])))
        case dict():
            to = [text(given.get(part, "")) for part in ("addr", "port")]
            return Nat(kind, to[0], to[1], flags=_values(given.get("flags", [])))
        case _:
            return None


def _values(raw: Any, *, hexadecimal: bool = False) -> tuple[str, ...]:
    match raw:
        case {"set": list(values)} | list(values):
            return tuple(_value(value, hexadecimal=hexadecimal) for value in values)
        case _:
            return (text(raw, hexadecimal=hexadecimal),)


def _value(raw: Any, *, hexadecimal: bool) -> str:
    """Return one element of an anonymous set, without its counter or comment: "10.96.0.10 . 53"."""
    match raw:
        case {"elem": {"val": found}}:
            return text(found, hexadecimal=hexadecimal)
        case _:
            return text(raw, hexadecimal=hexadecimal)


def _parts(raw: Any) -> tuple[str, ...]:
    """Return the parts of ``ip daddr . meta l4proto . th dport``; of another expression the expression itself."""
    match raw:
        case {"concat": [_, *_] as parts}:
            return tuple(text(part) for part in parts)
        case _:
            return (text(raw),)


def _joined(parts: Verdict | tuple[str, ...]) -> str:
    return " . ".join(parts) if isinstance(parts, tuple) else str(parts)


_BITWISE = ("|", "&", "^")
_PLAIN = frozenset({"iif", "oif", "iifname", "oifname"})  # nft prints no `meta` before these


def text(raw: Any, *, hexadecimal: bool = False) -> str:
    """Return a value or a selector as nft prints it; an unknown one as JSON."""
    match raw:
        case str():
            return raw
        case bool():
            return "exists" if raw else "missing"
        case int():
            return hex(raw) if hexadecimal else str(raw)
        case dict() if len(raw) == 1:
            return _composed(raw) or json.dumps(raw)
        case _:
            return json.dumps(raw)


def _composed(raw: dict[str, Any]) -> str:
    match raw:
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            return f"{protocol} {name}"
        case {"meta": {"key": str(key)}}:
            return key if key in _PLAIN else f"meta {key}"
        case {"ct": {"key": str(key), **direction}} if not direction:
            return f"ct {key}"
        case {"fib": {"result": str(result), "flags": list(flags)}}:
            return f"fib {_joined(tuple(text(flag) for flag in flags))} {result}"
        case {"fib": {"result": str(result), "flags": str(flag)}}:
            return f"fib {flag} {result}"
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return f"{address}/{length}"
        case {"range": [low, high]}:
            return f"{text(low)}-{text(high)}"
        case {"numgen": {"mode": str(mode), "mod": int(modulus), "offset": 0}}:
            return f"numgen {mode} mod {modulus}"
        case {"concat": [*parts]}:
            return _joined(tuple(text(part) for part in parts))
    [(op, operands)] = raw.items()
    match operands:
        case [left, right] if op in _BITWISE:
            mask = text(right, hexadecimal=True)
            return f"{text(left)} {op} {f'({mask})' if ' ' in mask else mask}"
        case _:
            return ""
