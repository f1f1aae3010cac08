"""iptables: rules of many extensions as iptables-save writes them, and rules that cannot be read.

The texts are reduced from public reports; the project and number of each is beside it.
"""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Network

import pytest

from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES, Option, Rule, address_and_mask
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from tests.support.files import CAPTURED


def rule(line: str) -> Rule:
    (found,) = IPTABLES.parse(f"*filter\n:FORWARD DROP [0:0]\n[3:180] {line}\nCOMMIT\n").rules("filter", "FORWARD")
    return found


# ufw, Docker, Istio, Cilium, libvirt; as iptables-nft-save 1.8.9 writes them
READ_AND_WRITTEN = [
    '-A FORWARD -j LOG --log-prefix "-- IN -- DROP " --log-level 6',
    '-A FORWARD -m comment --comment "-- it\\\'s \\"quoted\\" --" -j DROP',
    "-A FORWARD -s 10.0.0.0/255.0.255.0 -j DROP",
    '-A FORWARD -m string --string "-evil x" --algo bm -j DROP',
    "-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
    '-A FORWARD -m limit --limit 3/min -j LOG --log-prefix "[UFW BLOCK] "',
    "-A FORWARD -m owner ! --uid-owner 1337 -j RETURN",
    "-A FORWARD -p tcp -m multiport --dports 80,443,8000:8010 -j ACCEPT",
    "-A FORWARD ! -i docker0 -o docker0 -j ACCEPT",
    "-A FORWARD -m recent --set --name SSH --mask 255.255.255.255 --rsource",
    "-A FORWARD -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0xd00/0xf00 -j MARK --set-xmark 0xc00/0xf00",
    "-A FORWARD -p tcp -m mark --mark 0x392 -j TPROXY --on-port 37379 --on-ip 0.0.0.0 --tproxy-mark 0x200/0xffffffff",
    "-A FORWARD -m rpfilter --validmark --invert -j DROP",
    "-A FORWARD -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
    "-A FORWARD -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
    "-A FORWARD ! -f -j ACCEPT",
]


@pytest.mark.parametrize("line", READ_AND_WRITTEN)
def test_a_rule_is_read_and_written_as_iptables_writes_it(line: str) -> None:
    found = rule(line)
    assert (str(found), found.unread, found.packets, found.bytes) == (line, "", 3, 180)


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ('-m string --string "-A" --algo bm -j DROP', Option("--string", ("-A",))),
        ("-m comment --comment -j -j DROP", Option("--comment", ("-j",))),  # without quotes: it needs none
        ('-m comment --comment "! -s" -j DROP', Option("--comment", ("! -s",))),
        ('-m comment --comment "" -j DROP', Option("--comment", ("",))),
        ('-m comment --comment "[unsupported revision]" -j DROP', Option("--comment", ("[unsupported revision]",))),
        ('-m u32 --u32 "0x0>>0x16&0x3c@0x8=0x49" -j DROP', Option("--u32", ("0x0>>0x16&0x3c@0x8=0x49",))),
        ('-m bpf --bytecode "4,48 0 0 9,21 0 1 6" -j DROP', Option("--bytecode", ("4,48 0 0 9,21 0 1 6",))),
        ("-i -odd -j DROP", Option("-i", ("-odd",))),
    ],
)
def test_a_value_may_look_like_an_option(line: str, option: Option) -> None:
    found = rule(f"-A FORWARD {line}")
    assert option in found.matches and found.target == "DROP" and not found.unread


def test_a_backslash_keeps_the_next_character() -> None:
    assert rule(r'-A FORWARD -m comment --comment "it\'s \"so\" \\ -j" -j DROP').comment == r"""it's "so" \ -j"""


def test_an_option_has_the_module_of_its_match() -> None:
    found = rule("-A FORWARD -i eth0 -m connmark --mark 0x1 -m mark --mark 0x2 -j MARK --set-xmark 0x3/0x3")
    assert [option.module for option in found.matches] == ["", "", "connmark", "", "mark"]
    assert found.target_options[0].module == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-A FORWARD -j", "names no target"),
        ("-A FORWARD -j ACCEPT DROP", "names no target"),
        ("-A FORWARD ACCEPT", "has a stray 'ACCEPT'"),
        ("-A FORWARD -i eth0 eth1 -j ACCEPT", "has a stray 'eth1'"),
        ("-A FORWARD -s nowhere -j ACCEPT", "has a -s that is no range"),
        ("-A FORWARD -d 10.0.0.0/33 -j ACCEPT", "has a -d that is no range"),
        ("-A FORWARD -j ACCEPT !", "ends in `!`"),
        ('-A FORWARD -m comment --comment "open', "has an open quote"),
    ],
)
def test_a_rule_that_cannot_be_read_is_kept_with_the_reason(line: str, why: str) -> None:
    text = f"*filter\n:FORWARD DROP [0:0]\n[3:180] {line}\n-A FORWARD -j ACCEPT\nCOMMIT\n"
    unread, other = IPTABLES.parse(text).rules("filter", "FORWARD")
    assert (unread.unread, str(unread), unread.packets, unread.target) == (why, line, 3, "")
    assert not unread.of_another_version
    assert str(other) == "-A FORWARD -j ACCEPT" and not other.unread
    assert IPTABLES.parse(text).unread == (("filter", unread),)


NEWER = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SEP-FRUH4FMRRHR5RC - [0:0]
-A KUBE-SEP-FRUH4FMRRHR5RC -s 10.99.99.27/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-FRUH4FMRRHR5RC -p tcp -m comment --comment "default/kubernetes:https" -m tcp -j DNAT [unsupported revision]
-A KUBE-SEP-FRUH4FMRRHR5RC -m conntrack [unsupported revision] -j RETURN
COMMIT
"""  # kubernetes 94754


def test_a_rule_of_another_version_keeps_what_could_be_read() -> None:
    marking, translating, returning = IPTABLES.parse(NEWER).rules("nat", "KUBE-SEP-FRUH4FMRRHR5RC")
    assert not marking.unread and not marking.of_another_version and translating.of_another_version
    assert translating.unread == (
        "was written by another version of iptables than the one that printed it: [unsupported revision]"
    )
    assert (translating.target, translating.value("-p"), translating.comment) == (
        "DNAT", "tcp", "default/kubernetes:https"
    )  # fmt: skip
    assert str(translating).endswith("-j DNAT [unsupported revision]") and returning.unread


def test_tables_that_only_nft_can_list_are_known() -> None:
    """kilo 402: iptables-save leaves the table out, and says so in a comment."""
    text = "# Table `filter' is incompatible, use 'nft' tool.\n# Table `nat' is incompatible, use 'nft' tool.\n"
    found = IPTABLES.parse(text)
    assert (found.incompatible, found.tables) == (("filter", "nat"), {})
    assert IPTABLES.parse("").incompatible == ()


def test_which_iptables_printed_it() -> None:
    legacy = IPTABLES_LEGACY.parse((CAPTURED / "iptables-legacy.txt").read_text())
    assert legacy.legacy and not legacy.legacy_beside
    assert [str(found) for found in legacy.rules("filter", "FORWARD")] == ["-A FORWARD -s 10.244.0.0/16 -j DROP"]
    beside = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    nft = IPTABLES.parse("# Generated by iptables-save v1.8.11 (nf_tables) on Thu Nov 26 18:58:11 2026\n" + beside)
    assert nft.legacy_beside and not nft.legacy


def test_addresses_have_masks() -> None:
    assert address_and_mask("10.1.2.3") == (4, 0x0A010203, 0xFFFFFFFF)
    assert address_and_mask("10.0.0.0/8") == address_and_mask("10.0.0.0/255.0.0.0") == (4, 0x0A000000, 0xFF000000)
    assert address_and_mask("fd00::/16") == (6, 0xFD00 << 112, 0xFFFF << 112)
    for wrong in ("", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/fd00::", "10.0.0.0/x", "/8"):
        if wrong == "10.0.0.0/":
            assert address_and_mask(wrong) == address_and_mask("10.0.0.0")
            continue
        with pytest.raises(ValueError):
            address_and_mask(wrong)
    odd = rule("-A FORWARD -s 10.0.0.0/255.0.255.0 -d 10.96.0.0/16 -j DROP")
    assert (odd.source, odd.destination) == (None, IPv4Network("10.96.0.0/16"))


def test_sets_have_dimensions_and_options() -> None:
    text = (
        "create fail2ban hash:ip family inet hashsize 1024 netmask 24 comment\ncreate lb hash:ip,port,ip family inet\n"
    )
    banned, loop = IPSET.parse(text)
    assert (banned.dimensions, banned.option("netmask"), banned.option("timeout")) == (("ip",), "24", "")
    assert loop.dimensions == ("ip", "port", "ip")


@pytest.mark.skipif(not shutil.which("iptables-restore", path="/usr/sbin:/sbin"), reason="needs iptables")
@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_iptables_itself_reads_what_is_written(program: str) -> None:
    """Every rule, as written here, is one that iptables-restore understands, and that it writes in the same way."""
    elsewhere = ("TPROXY", "rpfilter", "owner", "match-set")  # of other chains, or of a set that is not there
    lines = [line for line in READ_AND_WRITTEN if not any(word in line for word in elsewhere)]
    text = "*filter\n:FORWARD DROP [0:0]\n" + "".join(f"{rule(line)}\n" for line in lines) + "COMMIT\n"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f"{program}-restore && {program}-save"],
        input=text,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare failed" in done.stderr or "not found" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert [str(found) for found in IPTABLES.parse(done.stdout).rules("filter", "FORWARD")] == lines
