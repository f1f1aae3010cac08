"""The learners' pages: taken apart and put back, recorded on a lab that only talks, and compared with one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hoplab import cli
from hoplab.core.paths import LabPaths
from hoplab.devtools import pages
from hoplab.devtools.pages import (
    Block,
    OnLab,
    Page,
    PageError,
    Step,
    comparable,
    drifts,
    parse,
    recorded,
    swapped,
    written,
)
from hoplab.observe.script import Output, Script
from hoplab.observe.ssh import Hosts
from hoplab.verify import session, workload
from hoplab.verify.claims import listed
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


def test_a_page_is_its_blocks_and_their_commands() -> None:
    first, second = page().blocks
    assert [step.prompt for step in first.steps] == [
        "worker1# ip route get 10.9.9.9",
        "worker1/echo# echo a; \\\n  echo b",
        "worker2# true",
    ]
    assert first.steps[0].output == ("10.9.9.9 via somewhere",)
    assert (first.values, first.fails) == ({"worker2-echo": "10.9.9.9"}, False)
    assert (second.values, second.fails) == ({}, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n```console\nworker1# true", "docs/x.md:2: the console block does not end"),
        ("```console\noutput\n```", "docs/x.md:1: a console block begins with a prompt and a command"),
        ("```console\n```", "docs/x.md:1: a console block begins with a prompt"),
        ("<!-- lab: single=1 -->\n\n```console", "docs/x.md:1: `<!-- lab: single=1 -->` does not name values"),
        ("<!-- lab: Single=1 -->\n```console", "docs/x.md:1: `<!-- lab: Single=1 -->` does not name values"),
        ("```console\nhost$ ./lab destroy\n```", "docs/x.md:2: `./lab destroy` is none of ./lab kubectl, practice"),
        ("```console\nhost$ rm x\n```", "docs/x.md:2: `rm x` is none of ./lab kubectl"),
    ],
)
def test_a_page_that_is_not_as_it_should_be(text: str, says: str) -> None:
    with pytest.raises(PageError) as caught:
        page(text)
    assert says in caught.value.message
    assert "docs/lessons/README.md" in caught.value.remedy


PROMPTS = st.sampled_from(["worker1# ip route", "worker1/echo# x \\", "host$ ./lab status", "single# true"])
FENCES = st.sampled_from(["```console", "```console", "```", "```", "```sh"])
COMMENTS = st.sampled_from(["<!-- lab: fails -->", "<!-- lab: single=10.0.0.1 home=worker2 -->"])
LINES = st.one_of(PROMPTS, FENCES, COMMENTS, st.sampled_from(["", "  text", "worker1 # no", "trailing  "]))


@given(st.lists(st.one_of(LINES, st.text(max_size=8))))
def test_a_page_with_its_own_outputs_is_the_same_page(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        found = page(text)
    except PageError:
        return
    assert written(found, found.blocks) == text


def _block(prompt: str, output: list[str], values: Mapping[str, str]) -> str:
    comment = f"<!-- lab: {' '.join(f'{name}={value}' for name, value in values.items())} -->\n" if values else ""
    return comment + "\n".join(["```console", prompt, *output, "```"])


OUTPUT = st.lists(st.text("abc #:-.0123456789", max_size=12), max_size=3)
VALUES = st.dictionaries(st.sampled_from(["single", "home"]), st.from_regex(r"[a-z0-9.]{1,6}", fullmatch=True))


@given(st.lists(st.tuples(PROMPTS, OUTPUT, VALUES)))
def test_every_page_of_blocks_comes_back(blocks: list[tuple[str, list[str], Mapping[str, str]]]) -> None:
    text = "\n\n".join(["# Title", *(_block(*block) for block in blocks), "end"])
    found = page(text)
    assert len(found.blocks) == len(blocks)
    assert written(found, found.blocks) == text


def test_outputs_and_values_are_put_into_the_page_and_nothing_else() -> None:
    echo = LAB.values["worker2-echo"]
    text = written(page(), recorded(page(), Nodes(failing).lab()))
    assert text == PAGE.replace("10.9.9.9 via somewhere\n", "").replace("10.9.9.9", echo).replace(
        f"get {echo}\n", f"get {echo}\nworker1 did it\n\nreally\n"
    ).replace("  echo b\n", "  echo b\nworker1 did it\n\nreally\n").replace(
        "worker2# true\n", "worker2# true\nworker2 did it\n\nreally\n"
    ).replace("worker1# false\n", "worker1# false\nworker1 did it\n\nreally\n")
    again = page(text)
    assert written(again, recorded(again, Nodes(failing).lab())) == text


def test_roles_change_places() -> None:
    other = {"home": "worker2", "away": "worker1"}
    old = page("<!-- lab: home=worker1 away=worker2 -->\n```console\nworker1/echo# ask worker2\nby worker1\n```")
    new = pages.filled(old, old.blocks[0], other)
    assert written(old, [new]) == (
        "<!-- lab: home=worker2 away=worker1 -->\n```console\nworker2/echo# ask worker1\n```"
    )


def test_only_whole_words_are_replaced() -> None:
    words = {"10.244.1.3": "A", "worker1": "B", "veth1": "C"}
    assert swapped("10.244.1.3:80 10.244.1.3/24 10.244.1.3. src=10.244.1.3", words) == "A:80 A/24 A. src=A"
    untouched = "10.244.1.30 110.244.1.3 10.244.1.3.4 worker10 myworker1 worker1-x veth12"
    assert swapped(untouched, words) == untouched
    assert swapped("worker1/echo veth1@if2", words) == "B/echo C@if2"
    assert swapped("worker1", {}) == "worker1"


def test_commands_that_follow_each_other_on_a_node_are_one_round_trip() -> None:
    nodes = Nodes(failing)
    recorded(page(), nodes.lab())
    assert nodes.batches == [("worker1", 2), ("worker2", 1), ("worker1", 1)]


def test_a_command_that_fails_is_named_and_the_others_are_run_all_the_same() -> None:
    nodes = Nodes(lambda _node, command: Output(3 if "route" in command else 1, "RTNETLINK says no\n"))
    with pytest.raises(PageError) as caught:
        recorded(page(), nodes.lab())
    echo = LAB.values["worker2-echo"]
    assert caught.value.message == f"docs/x.md:5: `worker1# ip route get {echo}` ended with 3\n  RTNETLINK says no"
    assert caught.value.remedy == "nothing was written; try it by hand"
    assert sum(number for _, number in nodes.batches) == 4


def test_a_command_that_should_fail_and_does_not() -> None:
    with pytest.raises(PageError, match=r"docs/x.md:16: `worker1# false` did not fail, as the page says"):
        recorded(page(), LAB)


@pytest.mark.parametrize("line", ["worker1# ip route", "```", "host$ ./lab up"])
def test_output_that_would_be_read_as_something_else(line: str) -> None:
    with pytest.raises(PageError, match=r"docs/x.md:2: `worker1# cat` prints `.*`, which does not look like output"):
        recorded(page("```console\nworker1# cat\n```"), Nodes(lambda *_: Output(0, f"a\n{line}\n")).lab())


def test_a_place_that_the_lab_does_not_have() -> None:
    with pytest.raises(PageError, match=r"docs/x.md:2: lab blue has no `worker9/echo`") as caught:
        recorded(page("```console\nworker9/echo# true\n```"), LAB)
    assert caught.value.remedy.startswith("it has host, worker1, worker2, ")


def test_a_value_that_the_lab_does_not_have() -> None:
    with pytest.raises(
        PageError, match=r"docs/x.md:1: this lab has no value `moon`; it has single, home, home-address"
    ):
        recorded(page("<!-- lab: moon=1 -->\n```console\nworker1# true\n```"), LAB)


def test_what_a_page_can_name() -> None:
    single = LAB.session.single
    home = single.node.name
    away = next(node.name for node in RECORDED.nodes if node.name != home)
    found = LAB.values
    assert (found["home"], found["away"], found["single"]) == (home, away, str(single.address))
    assert found["away-address"] == str(RECORDED.setting.nodes[away])
    there, app2 = LAB.places[workload.APP2]
    assert app2
    assert (found["app2"], found["app2-home"]) == (str(app2.address), there)
    assert found["app2-home-address"] == str(RECORDED.setting.nodes[there])
    assert {found["app2-home"], found["app2-away"]} == {node.name for node in RECORDED.nodes}
    for pod in LAB.session.echo_pods:
        assert pod.host_end
        assert found[f"{pod.node.name}-echo"] == str(pod.address)
        assert found[f"{pod.node.name}-echo-veth"] == pod.host_end.name
    assert found["echo-service"] == str(LAB.session.service("echo").cluster_ip)
    assert LAB.places["single"] == (home, single)


def test_commands_run_as_in_a_shell_there() -> None:
    nodes = Nodes(lambda _node, command: _local(command))
    text = '```console\nworker1# echo "it\'s $((40 + 2))" | cat; echo err >&2; cat\nworker1# cd /; pwd\n```'
    found = recorded(page(text), nodes.lab())
    assert [step.output for step in found[0].steps] == [("it's 42", "err"), ("/",)]


def _local(command: str) -> Output:
    """What a node's batch does with one command, here."""
    script = Script({"it": command}, {})
    text = script.text.replace("/run/hoplab-err", "/tmp/hoplab-err")  # anybody may run tests
    ran = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    return script.split(ran.stdout)["it"]


def test_a_pods_commands_run_in_its_namespace() -> None:
    nodes = Nodes(lambda _node, command: Output(0, command))
    found = recorded(page("```console\nsingle# ip route | head\n```"), nodes.lab())
    assert list(found[0].steps[0].output) == [
        f"nsenter --net=/run/netns/{LAB.session.single.netns} timeout 60 bash -c 'ip route | head' </dev/null 2>&1"
    ]
    assert nodes.batches == [(LAB.session.single.node.name, 1)]


def test_the_hosts_commands_are_for_this_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").write_text('#!/bin/sh\necho "$HOPLAB_LAB: $*"; echo second >&2; cat\n')
    (tmp_path / "lab").chmod(0o755)
    monkeypatch.setattr(pages, "PROJECT", tmp_path)
    found = recorded(page("```console\nhost$ ./lab kubectl get nodes -o 'a b' | cat\n```"), LAB)
    assert set(found[0].steps[0].output) == {"second", "blue: kubectl get nodes -o a b"}


ONE, OTHER = "0409363f-4ddd-3730-d473-c62f4073ce0d", "6b5d4977-19c8-6aa1-73c9-e9b726231983"
SAME = (
    ("10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink", "10.244.7.0/24 via 10.244.7.0 dev flannel.1 onlink"),
    ("10.244.1.0/24 dev cni0 proto kernel src 10.244.1.1", "10.244.0.0/24 dev cni0 proto kernel src 10.244.0.1"),
    ("6: veth28167e5e@if2: <UP> master cni0", "15: veth00c0ffee@if2: <UP> master cni0"),
    ("2: eth0@if6: <UP> mtu 1450", "2: eth0@if11: <UP> mtu 1450"),
    ("link/ether 1a:b9:2d:37:0d:4a link-netnsid 0", "link/ether 92:63:7f:7f:4d:c3 link-netnsid 3"),
    ("[12:720] -A FORWARD -j KUBE-FORWARD", "[0:0] -A FORWARD -j KUBE-FORWARD"),
    ("-A KUBE-SEP-6ASH7BT6FVHHUS3R -s 10.244.0.5/32", "-A KUBE-SEP-UDSXGWETCJHM65Y5 -s 10.244.1.3/32"),
    ("-d 10.105.48.144/32 -j KUBE-SVC-47UHDF5OHX5VB7DP", "-d 10.96.216.184/32 -j KUBE-SVC-47UHDF5OHX5VB7DP"),
    ("-A CNI-DN-2e04157b642fa832cd1f3 -p tcp --dport 80", "-A CNI-DN-0f9a557b642fa832cd1f3 -p tcp --dport 80"),
    ("*  issuer: CN=hoplab test-455730", "*  issuer: CN=hoplab dev-1a2b3c"),
    (
        "locked off mab off mcast_n_groups 1 mcast_max_groups 0",
        "locked off mab off mcast_n_groups 0 mcast_max_groups 0",
    ),
    ("tcp      6 119 TIME_WAIT sport=40128 dport=80 use=1", "tcp      6 9 TIME_WAIT sport=1025 dport=80 use=2"),
    ("1 flow entries have been shown.", "3 flow entries have been shown."),
    ("192.168.77.1 dev eth0 lladdr 52:54:00:32:65:2f STALE", "192.168.77.1 dev eth0 lladdr 52:54:00:00:00:01 DELAY"),
    ("echo-57hms   1/1     Running   0          3m39s", "echo-9p2h6 1/1   Running   2 (3m ago)   5d"),
    ("single-659bfc6785-z7p4v Running 0", "single-7d4b9c6f8-x2lkq Running 1"),
    ("eth0\t0001F40A\t00000000\t0001", "eth0\t0000F40A\t00000000\t0001"),
    ("rtt min/avg/max/mdev = 0.5/0.6/0.7/0.1 ms", "rtt min/avg/max/mdev = 10.5/11.6/22.7/1.1 ms"),
    ("curl: (7) Failed to connect to x after 0 ms: no", "curl: (7) Failed to connect to x after 12 ms: no"),
    ("# Generated by iptables-save v1.8.11 on Mon Nov 23", "# Generated by iptables-save v1.8.11 on Tue Dec 1"),
    ("10.244.1.3:41234", "10.244.0.9:9999"),
    ("app1:80 (10.244.1.5:8080,10.244.0.5:8080)", "app1:80 (10.244.0.8:8080,10.244.0.10:8080)"),
    ("> 10.244.0.5: ICMP echo request, id 7, seq 1,", "> 10.244.0.5: ICMP echo request, id 30, seq 4,"),
    (f"link-netns cni-{ONE}", f"link-netns cni-{OTHER}"),
    (f"{ONE}{OTHER}".replace("-", ""), f"{OTHER}{ONE}".replace("-", "")),
    ("IP 192.168.77.20.41234 > 192.168.77.21.8472: VXLAN", "IP 192.168.77.20.50000 > 192.168.77.21.8472: VXLAN"),
)
OTHERWISE = (
    ("app1:80 (10.244.1.5:8080,10.244.0.5:8080)", "app1:80 (10.244.1.5:8080)"),
    ("10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink", "10.244.0.0/24 via 10.244.0.0 dev flannel.1"),
    ("10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink", "10.244.0.0/24 via 10.244.1.0 dev flannel.1 onlink"),
    ("10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink", "10.244.0.0/24 via 192.168.77.21 dev eth0"),
    ("10.244.0.0/24 dev cni0", "10.244.0.0/25 dev cni0"),
    ("10.244.0.0/16 via 10.244.1.1", "10.244.0.0/24 via 10.244.1.1"),
    ("default via 10.244.1.1 dev eth0", "default via 10.244.1.0 dev eth0"),
    ("default via 10.244.1.1 dev eth0", "default via 10.244.1.7 dev eth0"),
    ("default via 192.168.77.1", "default via 192.168.77.2"),
    ("src=10.244.1.3 dst=10.244.0.5 src=10.244.0.5", "src=10.244.1.3 dst=10.244.0.5 src=10.244.0.6"),
    ("lladdr 92:63:7f:7f:4d:c3 PERMANENT", "lladdr 92:63:7f:7f:4d:c3 STALE"),
    ("33:33:00:00:00:01 dev cni0", "92:63:7f:7f:4d:c3 dev cni0"),
    ("10.96.0.10/32", "10.96.0.11/32"),
    ("10.96.0.1/32", "10.96.0.10/32"),
    ("KUBE-SVC-47UHDF5OHX5VB7DP", "KUBE-SVC-KKSUJAY6S42JRSOW"),
    ("--probability 0.50000000000", "--probability 0.33333333349"),
    ("--dport 30080", "--dport 30081"),
    ("10.244.1.3:8080", "10.244.1.3:8081"),
    ("-j MASQUERADE --random-fully", "-j MASQUERADE"),
    ("mtu 1450", "mtu 1500"),
    ("999.244.1.3", "998.244.1.3"),
)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_another_lab_of_the_same_spec_says_the_same(one: str, other: str) -> None:
    assert comparable(one, RECORDED.setting) == comparable(other, RECORDED.setting)


@pytest.mark.parametrize(("one", "other"), OTHERWISE)
def test_another_shape_is_another_line(one: str, other: str) -> None:
    assert comparable(one, RECORDED.setting) != comparable(other, RECORDED.setting)


RANGES = st.lists(st.integers(0, 255), min_size=2, max_size=2, unique=True)
HOST_NUMBERS = st.lists(st.integers(2, 254), min_size=2, max_size=2, unique=True)


@given(RANGES, RANGES, HOST_NUMBERS, HOST_NUMBERS)
def test_ranges_and_pods_may_be_any(ranges: list[int], others: list[int], pods: list[int], more: list[int]) -> None:
    def line(first: int, second: int, pod: int, far: int) -> str:
        return (
            f"10.244.{first}.{pod} via 10.244.{first}.1, 10.244.{second}.{far} via 10.244.{second}.0 of 10.244.0.0/16"
        )

    one, other = (
        comparable(line(*some, *numbers), RECORDED.setting) for some, numbers in ((ranges, pods), (others, more))
    )
    assert one == other
    swapped_ends = comparable(line(ranges[0], ranges[0], *pods), RECORDED.setting)
    assert one != swapped_ends


@given(st.text())
def test_any_line_can_be_compared(line: str) -> None:
    assert comparable(line, RECORDED.setting) == comparable(line + "  ", RECORDED.setting)


ROUTES = """default via 192.168.77.1 dev eth0 proto static
10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1"""


def _drifts(command: str, then: str, now: str, values: Mapping[str, str] | None = None) -> list[str]:
    old = page(_block(f"worker1# {command}", then.split("\n"), values or {}))
    step = replace(old.blocks[0].steps[0], output=tuple(now.split("\n")))
    return list(drifts(old, [replace(old.blocks[0], steps=(step,))], RECORDED.setting))


def test_the_node_with_the_other_range_does_not_drift() -> None:
    other = """default via 192.168.77.1 dev eth0 proto static
10.244.0.0/24 dev cni0 proto kernel scope link src 10.244.0.1
10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"""
    assert _drifts("ip route", ROUTES, other) == []
    one, other = (
        "flannel.1\t0000F40A\t0000F40A\t3\ncni0\t0001F40A\t0\t1",
        "cni0\t0000F40A\t0\t1\nflannel.1\t0001F40A\t0001F40A\t3",
    )
    assert _drifts("cat /proc/net/route", one, other) == []


def test_a_route_that_is_gone_is_shown_and_what_did_not_change_is_as_recorded() -> None:
    now = """10.244.3.0/24 dev cni0 proto kernel scope link src 10.244.3.1
default via 192.168.77.1 dev eth0 proto dhcp"""
    assert _drifts("ip route", ROUTES, now) == [
        "--- docs/x.md:2 worker1# ip route\n"
        "+++ now worker1# ip route\n"
        "@@ -1,3 +1,2 @@\n"
        " 10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1\n"
        "-10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink\n"
        "-default via 192.168.77.1 dev eth0 proto static\n"
        "+default via 192.168.77.1 dev eth0 proto dhcp"
    ]


def test_the_order_of_rules_counts() -> None:
    one, other = "-A X -j RETURN\n-A X -j DROP", "-A X -j DROP\n-A X -j RETURN"
    assert _drifts("ip route", one, other) == []
    assert len(_drifts("iptables -S X", one, other)) == 1


def test_how_many_pods_a_node_has_does_not_count() -> None:
    assert _drifts("ip -br link", "veth28167e5e@if2 UP", "veth28167e5e@if2 UP\nveth5462e0c2@if2 UP") == []


def test_named_values_are_compared_by_their_names() -> None:
    values = {"home": "worker1"}
    old = page(_block("worker1# hostname", ["worker1"], values))
    block = replace(old.blocks[0], values={"home": "worker2"})
    for says, number in (("worker2", 0), ("worker1", 1)):
        fresh = replace(block, steps=(Step(1, "worker2", "hostname", (says,)),))
        assert len(list(drifts(old, [fresh], RECORDED.setting))) == number


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pages; the lab is there and its commands say what `Nodes.says` says."""
    (tmp_path / "a.md").write_text(PAGE)
    (tmp_path / "b.md").write_text("```console\nworker2# uname\nLinux\n```\n")
    (tmp_path / "prose.md").write_text("nothing to run\n")
    monkeypatch.setattr(pages, "FOLDERS", (tmp_path,))
    return tmp_path


def opened_as(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(_paths: LabPaths, say: Callable[[str], None]) -> Iterator[LabSession]:
        say("looking")
        yield nodes.lab().session

    monkeypatch.setattr(session, "opened", opened)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["pages", *words], catch_exceptions=True)
    if isinstance(result.exception, PageError):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_verb_records_and_then_checks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as(Nodes(failing), monkeypatch)
    code, out = run("--check")
    assert code == 1 and "-10.9.9.9 via somewhere" in out and "+worker1 did it" in out
    assert (folder / "a.md").read_text() == PAGE
    code, out = run()
    assert code == 0 and re.findall(r"recorded .*/(\w+).md", out) == ["a", "b"]
    assert "worker2# uname\nworker2 did it\n" in (folder / "b.md").read_text()
    assert run("--check") == (0, "")


def test_when_one_command_fails_no_page_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(_node: str, command: str) -> Output:
        return Output(2 if "uname" in command else 1 if "false" in command else 0, "ok")

    opened_as(Nodes(says), monkeypatch)
    with pytest.raises(PageError, match=r"b.md:2: `worker2# uname` ended with 2"):
        run()
    assert (folder / "a.md").read_text() == PAGE


REAL = {page.name: page for page in pages.load().values()}


@dataclass(frozen=True)
class Told(OnLab):
    """Its commands fail where they should."""

    fails: frozenset[int] = frozenset()

    def run(self, machine: str, steps: Iterable[Step]) -> dict[int, Output]:
        return {step.line: Output(int(step.line in self.fails), f"{machine} says\n") for step in steps}


@pytest.mark.parametrize("name", REAL)
def test_every_page_there_is_can_be_recorded(name: str) -> None:
    """Its places and values exist, and it stays the same page."""
    texts = ["\n".join(REAL[name].lines)]
    for _ in range(2):
        found = parse(name, texts[-1])
        fails = frozenset(step.line for block in found.blocks if block.fails for step in block.steps)
        texts.append(written(found, recorded(found, Told(LAB.session, "blue", fails))))
    assert texts[1] == texts[2]
    prompts = [[step.prompt for step in block.steps] for block in parse(name, texts[2]).blocks]
    assert prompts == [[step.prompt for step in block.steps] for block in pages_of(name, LAB)]


def pages_of(name: str, lab: OnLab) -> list[Block]:
    return [pages.filled(REAL[name], block, lab.values) for block in REAL[name].blocks]


@pytest.mark.parametrize("name", REAL)
def test_prose_names_nothing_that_another_recording_changes(name: str) -> None:
    found = REAL[name]
    taken = {number for block in found.blocks for number in range(block.steps[0].line - 2, _end(block))}
    prose = "\n".join(line for number, line in enumerate(found.lines) if number not in taken)
    names = {
        f"{of}{name}" for of in ("", "app2-") for name in ("home", "away", "home-address", "away-address")
    }  # nodes' names and addresses are the spec's
    values = [each for block in found.blocks for name, each in block.values.items() if name not in names]
    used = {value for value in values if swapped(prose, {value: "\0"}) != prose}
    assert not used, f"write it without {listed(sorted(used))}, or in a console block"


def _end(block: Block) -> int:
    last = block.steps[-1]
    return last.line + 1 + last.command.count("\n") + len(last.output)
