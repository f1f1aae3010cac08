"""`./lab trace` on recordings and on a lab."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.trace.follow import follow
from hoplab.trace.model import Sent, Trace
from hoplab.verify import live_look, live_trace
from tests.support.files import RECORDINGS
from tests.support.recordings import recording

HEALTHY = RECORDINGS / "flannel-vxlan.json"


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["trace", *map(str, words)], catch_exceptions=False)
    return result.exit_code, result.output


def test_a_recording_is_traced() -> None:
    code, out = run("single-", "hoplab-verify/echo", "--recording", HEALTHY)
    assert code == 0
    first, outcome, *_ = out.splitlines()
    assert first.endswith("to service hoplab-verify/echo: TCP 10.244.0.6:* > 10.102.196.103:80")
    assert outcome.startswith("arrives at pod hoplab-verify/echo-lm2p5, and the reply returns")


def test_what_does_not_arrive_is_exit_code_1() -> None:
    code, out = run("single-", "nobody", "--recording", HEALTHY)
    assert code == 1 and "\nends      the packet reaches node worker2, and not service hoplab-verify/nobody\n" in out


def test_options_choose_the_packet() -> None:
    code, out = run("--from", "outside", "service/single", "--via", "nodeport", "--json", "--recording", HEALTHY)
    document = json.loads(out)
    assert code == 0 and document["from"] == "outside"
    assert document["ways"][0]["there"][0]["packet"]["dport"] == 30080
    code, out = run("single-", "kube-dns", "--proto", "tcp", "--port", "9153", "--recording", HEALTHY)
    assert code == 0 and ": TCP 10.244.0.6:* > 10.96.0.10:9153\n" in out


def test_a_packet_of_ipv6() -> None:
    dual = RECORDINGS / "calico-bgp-dual.json"
    code, out = run("single-", "hoplab-verify/echo", "--ipv6", "--recording", dual)
    assert code == 0 and " to service hoplab-verify/echo: TCP [fd00:244:0:" in out
    code, out = run("worker1", "fd00:77::21", "--proto", "icmp", "--recording", dual)
    assert code == 0 and ": ICMPv6 fd00:77::20 > fd00:77::21\n" in out
    code, out = run("worker1", "fd00:77::21", "--svg", "--recording", dual)
    assert code == 0 and "TCP [fd00:77::20]:* &gt; [fd00:77::21]:10250" in out
    with pytest.raises(LabError, match="lab dev has IPv4 alone"):
        run("worker1", "worker2", "--ipv6", "--recording", HEALTHY)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("single-",), "a trace has two ends: FROM TO, or --from outside TO"),
        (("--from", "outside", "a", "b"), "a trace has two ends"),
        (("a", "b", "--model", "--recording", "f"), "--model and --recording exclude each other"),
        (("a", "b", "--lab", "blue", "--recording", "f"), "--lab and --recording exclude each other"),
        (("a", "b", "--record", "g", "--recording", "f"), "--record and --recording exclude each other"),
        (("a", "b", "--record", "g", "--model"), "--model and --record exclude each other"),
        (("a", "b", "--json", "--svg"), "--json and --svg exclude each other"),
        (("a", "b", "--port", "0"), "0 is not in the range 1<=x<=65535"),
    ],
)
def test_options_that_exclude_each_other(words: tuple[str, ...], message: str) -> None:
    code, out = run(*words)
    assert code == 2 and message in out


def test_a_drawing() -> None:
    code, out = run("single-", "nobody", "--svg", "--recording", HEALTHY)
    assert code == 1 and out.startswith("<svg ") and out.endswith("</svg>\n")


def test_a_packet_is_sent_recorded_and_shown_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []
    sent = replace(
        follow(recording("flannel-vxlan"), "worker1", "worker2"),
        sent=Sent("connected", 4, 4, 4, (), ("worker1: no nft",)),
    )

    def trace(paths: LabPaths, sender: str, receiver: str, **options: object) -> Trace:
        options.pop("say")
        asked.append((paths.lab, sender, receiver, options))
        return sent

    monkeypatch.setattr(live_trace, "trace", trace)
    monkeypatch.setattr(state, "load_summary", lambda _: None)
    monkeypatch.setattr(state, "spec_notice", lambda *_: "")
    file = tmp_path / "a.json"
    code, out = run("worker1", "worker2", "--port", "22", "--record", file)
    assert asked == [("dev", "worker1", "worker2", {"port": 22, "protocol": "", "via": "", "ipv6": False})]
    assert code == 0 and "\nsent      connected: 4 of 4 hops seen, all as predicted\nlacking   worker1: no nft\n" in out
    assert f"wrote {file}\n" in out and file.stat().st_size < 16_000
    code, again = run("--recording", file)
    assert code == 0 and again == out[out.index("node worker1 to") :].replace(f"wrote {file}\n", "")
    code, drawn = run("--recording", file, "--svg")
    assert code == 0 and drawn.startswith("<svg ")


def test_a_file_that_is_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"hoplab_trace":7,"trace":{}}')
    with pytest.raises(LabError, match=f"{file} is not a recorded trace: its format is 7") as raised:
        run("--recording", file)
    assert raised.value.remedy == "make one: ./lab trace FROM TO --record FILE"


def test_an_unknown_end_is_named() -> None:
    with pytest.raises(LabError, match="'worker9' is no pod, node, service or address of lab dev"):
        run("worker1", "worker9", "--recording", HEALTHY)


def test_a_model_of_a_running_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(paths: LabPaths, say: object) -> object:
        looked.append(paths.lab)
        return recording("flannel-vxlan")

    monkeypatch.setattr(live_look, "look", look)
    monkeypatch.setattr(state, "load_summary", lambda _: None)
    monkeypatch.setattr(state, "spec_notice", lambda *_: "")
    code, out = run("worker1", "worker2", "--model", "--lab", "blue", "--port", "22")
    assert looked == ["blue"]
    assert code == 0 and "arrives at node worker2, and the reply returns\n" in out
