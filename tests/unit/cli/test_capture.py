"""`./lab capture` as a person types it: what is asked for, refused and printed. Nothing is captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import captures, state
from hoplab.observe.live.pcap_stream import Record
from hoplab.observe.live.pcapng import Interface
from hoplab.observe.live.places import Place, Target
from hoplab.observe.live.run import Counted, Limits, Result
from hoplab.observe.live.sinks import Sink
from tests.support import pcapng_reader

POD = Place("worker1", "cni-1", "eth0", "pod default/web-1 eth0 on worker1", "default/web-1 eth0")
WIRE = Place("", "hoplab-dev", "hl1", "wire hl1", "wire hl1")


class Played:
    """A capture at two places that sees one packet; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.request = captures.Request(())
        self.limits = Limits()
        self.result = Result((Counted(POD, 12, 0), Counted(WIRE, 1, None)))

    def __call__(
        self,
        _paths: LabPaths,
        request: captures.Request,
        sink_for: Callable[[Sequence[Place]], Sink],
        _stop: object,
        limits: Limits,
        say: Callable[[str], None],
    ) -> Result:
        self.request, self.limits = request, limits
        sink = sink_for((POD, WIRE))
        sink.begin([Interface(place.label, 1, 256) for place in (POD, WIRE)])
        say("capturing at 2 places; Ctrl-C ends it")
        sink.packet(0, 5, Record(5, bytes(12) + b"\x88\xcc", 60))
        sink.flush()
        sink.end({})
        sink.close()
        return self.result


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(captures, "capture", made)
    monkeypatch.setattr(state, "load_summary", lambda _: None)
    monkeypatch.setattr(state, "spec_notice", lambda *_: "")
    return made


def run(*words: str) -> Any:
    return CliRunner().invoke(cli.cli, ["capture", *words])


def test_a_line_a_packet_and_the_numbers_at_the_end(played: Played) -> None:
    done = run("web-1", "worker2:flannel.1", "--filter", " tcp port 80 ", "--with", "node,wire", "--count", "3")
    assert done.exit_code == 0
    assert played.request == captures.Request(
        (Target("web-1"), Target("worker2", "flannel.1")), "tcp port 80", True, True, captures.HEADERS_ONLY
    )
    assert played.limits == Limits(3, None)
    (line,) = done.stdout.splitlines()
    assert line.endswith(".000000 default/web-1 eth0  00:00:00:00:00:00 > 00:00:00:00:00:00 0x88cc 60 bytes")
    assert done.stderr.splitlines() == [
        "capturing at 2 places; Ctrl-C ends it",
        " place                              packets  dropped",
        " pod default/web-1 eth0 on worker1  12       0",
        " wire hl1                           1        ?",
    ]


def test_a_file_has_whole_packets(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    done = run("web-1", "-w", str(file), "--seconds", "0.5")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith(f"wrote {file}\n")
    assert (played.request.snaplen, played.limits) == (captures.WHOLE, Limits(None, 0.5))
    assert pcapng_reader.names(file.read_bytes()) == [POD.label, WIRE.label]
    again = run("web-1", "-w", str(file))
    assert isinstance(again.exception, LabError)
    assert (again.exception.message, again.exception.remedy) == (
        f"{file} exists",
        "name another file, or overwrite it with --force",
    )
    assert run("web-1", "-w", str(file), "--force").exit_code == 0


def test_a_dash_is_standard_output(played: Played) -> None:
    done = run("web-1", "-w", "-")
    assert done.exit_code == 0
    assert [packet.size for packet in pcapng_reader.packets(done.stdout_bytes)] == [60]


def test_a_terminal_gets_no_file(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.cli.capture.is_terminal", lambda: True)
    done = run("web-1", "-w", "-")
    assert isinstance(done.exception, LabError)
    assert done.exception.message == "a capture file is not for a terminal"
    assert "-w - | wireshark -k -i -" in done.exception.remedy


def test_a_file_that_can_not_be_written_is_refused_first(played: Played, tmp_path: Path) -> None:
    done = run("web-1", "-w", str(tmp_path / "no" / "a.pcapng"))
    assert isinstance(done.exception, LabError)
    assert done.exception.message == f"{tmp_path}/no/a.pcapng can't be written: No such file or directory"
    assert played.request.targets == ()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name a pod or a node, or give --with wire"),
        (("web-1", "--with", "nodes"), "'nodes' is none of node, wire"),
        (("web-1", "--count", "0"), "0 is not in the range x>=1"),
        (("web-1", "--seconds", "-1"), "-1.0 is not in the range x>0"),
    ],
)
def test_what_has_no_meaning_is_a_usage_error(played: Played, words: tuple[str, ...], why: str) -> None:
    done = run(*words)
    assert done.exit_code == 2 and why in done.stderr


def test_the_wire_alone_can_be_captured(played: Played) -> None:
    assert run("--with", "wire").exit_code == 0
    assert played.request.with_wire and not played.request.with_node


def test_a_capture_that_ended_early_is_a_failure_and_late_packets_are_noted(played: Played) -> None:
    played.result.lost.append("node worker1 eth0 is not captured any more: ...")
    played.result.late = 2
    done = run("web-1")
    assert done.exit_code == 1
    assert done.stderr.endswith("note: 2 packets came too late for their place in the order of time\n")


def test_a_reader_that_is_gone_leaves_no_trace_back(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[int] = []
    monkeypatch.setattr("os.dup2", lambda _file, target: replaced.append(target))
    played.result.output_closed = True
    assert run("web-1").exit_code == 0
    assert replaced == [1]
