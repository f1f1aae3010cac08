"""The benchmarks: both sides make the same lab, figures are what they say, and nothing is left of a benchmark's lab."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from benchmarks import byhand, ingress, labs, look, pair, soak
from benchmarks.byhand import ByHand, Laps
from benchmarks.labs import MARK, BenchLab, Report, bench_lab
from benchmarks.pair import Bringup
from benchmarks.sheets import Sheets, sheets
from benchmarks.soak import Cold
from hoplab.cluster import readiness
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.engine import schema
from hoplab.expectations.parts import known_parts
from hoplab.host import machines
from hoplab.image import NodeImage
from hoplab.lab import state
from hoplab.lab.spec_file import plan_lab
from hoplab.observe.facts import discover
from hoplab.observe.recording_format import load as load_recording
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from hoplab.verify import observations
from hoplab.verify.workload import APP1
from tests.support.imaginary import ingress as ingress_lab
from tests.support.lesson_functions import failures, read_only

UP = """\
[    1s] machines ...
[   40s] hoplab-bench-1a2b3c-worker1: its kernel panicked; restarted it (1 of at most 3 times)
changed   0 resources, 0 tasks
"""


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return LabPaths("bench", tmp_path)


def node_image(folder: Path) -> NodeImage:
    disk, kernel, initrd, programs = (folder / name for name in ("disk.qcow2", "vmlinuz", "initrd.img", "bin"))
    return NodeImage("0" * 20, folder, disk, kernel, initrd, programs, size_gib=4, versions={})


def written(paths: LabPaths, **settings: Any) -> tuple[LabPlan, Sheets]:
    plan = plan_lab(LabSpec(paths.lab, **settings), lab_id=paths.id, accel="tcg")
    return plan, sheets(plan, node_image(paths.project), paths)


@pytest.fixture
def hand(paths: LabPaths) -> Iterator[ByHand]:
    plan, sheet = written(paths)
    with (paths.project / "byhand.log").open("w") as log:
        yield ByHand(paths, plan, node_image(paths.project), sheet, log)


@pytest.fixture
def fake(paths: LabPaths) -> Callable[[str], BenchLab]:
    """A lab whose ``./lab`` is the given shell script; it finds the verb in $1."""

    def make(script: str) -> BenchLab:
        program = paths.project / "lab"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return BenchLab(paths, paths.project / "logs")

    return make


# What is made by hand


def test_the_machines_are_those_that_the_program_registers(paths: LabPaths) -> None:
    plan, sheet = written(paths)
    found = sorted(sheet.of(schema.DOMAIN), key=lambda machine: str(machine["name"]))
    assert [machine["name"] for machine in found] == [f"hoplab-{paths.id}-{node.name}" for node in plan.nodes]
    assert (found[0]["type"], found[0]["vcpu"], found[0]["memory"]) == ("qemu", 1, 2048)
    assert found[0]["disks"] == [{"volumeId": "worker1.qcow2"}, {"volumeId": "worker1-seed.iso"}]
    assert found[0]["kernel"] == str(paths.project / "vmlinuz")
    seeds = {seed["name"]: yaml.safe_load(seed["userData"]) for seed in sheet.of(schema.SEED)}
    assert seeds["worker1-seed.iso"]["hostname"] == "worker1"


def test_the_cluster_is_the_one_that_the_roles_make(paths: LabPaths) -> None:
    plan, sheet = written(paths)
    kubeadm = {document["kind"]: document for document in yaml.safe_load_all(sheet.kubeadm)}
    assert kubeadm["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == str(plan.network.gateway)
    assert kubeadm["ClusterConfiguration"]["kubernetesVersion"] == f"v{plan.kubernetes_version}"
    assert {"name": "leader-elect", "value": "false"} in kubeadm["ClusterConfiguration"]["scheduler"]["extraArgs"]
    assert kubeadm["KubeletConfiguration"]["featureGates"] == {"EventedPLEG": True}  # the emulation's profile
    assert sheet.patches == {}
    join = yaml.safe_load(sheet.join("worker2", token="abcdef.0123456789abcdef", ca_hash="sha256:00"))
    assert join["nodeRegistration"]["name"] == "worker2"
    assert join["discovery"]["bootstrapToken"]["apiServerEndpoint"] == f"{plan.api_address}:6443"
    kinds = [document["kind"] for document in yaml.safe_load_all(sheet.network)]
    assert kinds[0] == "Namespace" and kinds[-1] == "DaemonSet"


def test_a_control_plane_in_a_machine_is_patched_when_it_is_emulated(paths: LabPaths) -> None:
    _plan, sheet = written(paths, control_plane_placement="vm")
    assert sorted(sheet.patches) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    container = yaml.safe_load(sheet.patches["etcd"])["spec"]["containers"][0]
    assert container["name"] == "etcd" and container["livenessProbe"] is None
    assert "name: cp1" in sheet.kubeadm


def test_machines_are_powered_on_with_plain_commands(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[tuple[str, str]] = []

    def note(_self: ByHand, command: Sequence[str], *, stdin: str = "", out: object = None) -> None:
        typed.append((" ".join(command), stdin))

    monkeypatch.setattr(ByHand, "_run", note)
    hand._power_on("test:///default")
    assert [line.split()[0] for line, _ in typed] == (
        ["virsh"] * 2 + ["qemu-img"] * 2 + ["genisoimage"] * 2 + ["virsh"] * 2 + ["virsh"] * 4
    )
    assert typed[-1][0].startswith("virsh --quiet --connect test:///default start hoplab-bench-")
    machine = typed[-2][1]
    assert "<domain type=" in machine and 'type="qcow2"' in machine and "-seed.iso" in machine


def test_a_failed_command_is_named_with_its_last_words(hand: ByHand) -> None:
    with pytest.raises(LabError, match="`sh -c echo no such thing >&2; exit 3` failed: no such thing") as failed:
        hand._run(["sh", "-c", "echo no such thing >&2; exit 3"])
    assert failed.value.remedy == "see the log" and failed.value.log.endswith("byhand.log")


def test_a_machine_that_went_off_ends_the_wait_for_ssh(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    name = machines.domain_name(hand.plan.id, "worker1")
    monkeypatch.setattr(machines, "domain_states", lambda _uri: {name: "shut off"})
    with pytest.raises(LabError, match="worker1 does not boot") as failed:
        hand._until_ssh("worker1")  # there is no ssh_config, so ssh fails
    assert failed.value.remedy.endswith("console/worker1.log")


def test_a_cluster_that_never_gets_usable_says_why(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byhand, "STEP_S", -1.0)
    monkeypatch.setattr(byhand, "connect", opened)
    monkeypatch.setattr(readiness, "list_objects", lambda _api: readiness.ClusterObjects([], [], [], []))
    with pytest.raises(ClusterError, match="not usable after -1 s: node worker1 has not joined") as failed:
        hand._wait_usable(Laps())
    assert failed.value.remedy == "see the log"


def test_the_last_machine_counts_for_a_step() -> None:
    laps = Laps()
    for step in ("ssh", "joined", "ssh"):
        laps.lap(step)
    assert list(laps.times) == ["joined", "ssh"]
    assert laps.total == max(laps.times.values())


# Labs of benchmarks


def test_nothing_is_left_of_a_benchmarks_lab(
    fake: Callable[[str], BenchLab], paths: LabPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labs, "LabPaths", lambda _name: paths)
    fake(f'test -e {paths.spec} && echo "$@" >> {paths.project}/calls')
    with pytest.raises(KeyboardInterrupt), bench_lab("bench", {"lab:nodes": {"workers": 1}}, paths.project):
        assert paths.spec.read_text() == MARK + "config:\n  lab:nodes:\n    workers: 1\n"
        raise KeyboardInterrupt
    assert (paths.project / "calls").read_text() == "destroy --lab bench\n" * 2  # before and after
    assert not paths.spec.exists()


def test_somebodys_lab_is_refused(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "LabPaths", lambda _name: paths)
    paths.spec.write_text("config: {}\n")
    with (
        pytest.raises(LabError, match=r"Pulumi.bench.yaml is a lab of somebody's") as refused,
        bench_lab("bench", {}, paths.project),
    ):
        pytest.fail("it was not refused")
    assert "--lab" in refused.value.remedy
    assert paths.spec.read_text() == "config: {}\n"


def test_a_lab_that_cannot_be_destroyed_ends_the_benchmark(fake: Callable[[str], BenchLab]) -> None:
    lab = fake("echo 'error: libvirtd did not start'; exit 1")
    with pytest.raises(LabError, match="lab bench can't be destroyed: libvirtd did not start") as failed:
        lab.destroy("before")
    assert failed.value.remedy == "./lab destroy --lab bench, then try again"


def test_evidence_survives_the_lab(paths: LabPaths, tmp_path: Path) -> None:
    paths.console.mkdir(parents=True)
    (paths.console / "worker1.log").write_text("Kernel panic")
    kept = BenchLab(paths, tmp_path / "logs").keep_evidence("03")
    assert (kept / "console/worker1.log").read_text() == "Kernel panic"


def test_a_report_is_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("soak", tmp_path)
    report.say("1  251.0 s")
    report.figures = {"failed": 0}
    report.end()
    assert capsys.readouterr().out == '1  251.0 s\n{"benchmark": "soak", "failed": 0}\n'
    assert (tmp_path / "result.json").read_text() == '{"benchmark": "soak", "failed": 0}\n'


# The pair


def lab_state(paths: LabPaths) -> None:
    plan = plan_lab(LabSpec("bench"), lab_id=paths.id, accel="tcg")
    made = state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path())
    state.save(replace(made, phases=(("cluster", 120.04),)), paths)


def test_lab_up_is_timed_with_what_follows_it(fake: Callable[[str], BenchLab], paths: LabPaths) -> None:
    lab_state(paths)
    made = pair.up(fake(f"test $1 = verify && exit 1; cat <<'END'\n{UP}END"), "round-1", verify=True)
    assert made.seconds is not None and made.no_op_s is not None and made.verify_s is not None
    assert (made.steps, made.boot_retries, made.no_op_changed, made.verify_failed) == ({"cluster": 120.0}, 1, 0, True)


def test_a_failed_up_is_a_round_without_a_time(fake: Callable[[str], BenchLab]) -> None:
    made = pair.up(fake("echo 'error: worker1 does not boot (4 attempts)'; exit 1"), "round-1", verify=True)
    assert (made.seconds, made.why) == (None, "worker1 does not boot (4 attempts)")


def test_targets_that_are_met_and_missed() -> None:
    hands = [Bringup(200.0), Bringup(220.0), Bringup(210.0)]
    good = [Bringup(seconds, no_op_s=6.0, no_op_changed=0) for seconds in (250.0, 270.0, 260.0)]
    assert pair.shortcomings(hands, good) == []
    bad = [
        Bringup(280.0, no_op_s=11.0, no_op_changed=2),
        Bringup(None, why="worker1 does not boot"),
        Bringup(300.0, no_op_s=12.0, verify_failed=True),
    ]
    assert pair.shortcomings(hands, bad) == [
        "a bring-up failed: worker1 does not boot",
        "`./lab up` takes 1.38 times as long as by hand, at most 1.3 is wanted",
        "`./lab up` takes 11.5 s where there is nothing to do, at most 10 s is wanted",
        "the second `./lab up` changed 2 resources or tasks",
        "the second `./lab up` failed",
        "`./lab verify` found a claim that does not hold",
    ]


def test_the_pairs_table() -> None:
    hands = [Bringup(200.0), Bringup(210.0)]
    made = [Bringup(None, why="no"), Bringup(252.0, no_op_s=6.0, verify_s=20.5)]
    assert pair.figures_table(hands, made).splitlines() == [
        "         by hand s  ./lab up s  ratio  no-op s  verify s",
        "round 1      200.0      failed      -        -         -",
        "round 2      210.0       252.0   1.20      6.0      20.5",
        "median       205.0       252.0   1.23      6.0      20.5",
    ]


# The soak


def test_the_soaks_table() -> None:
    colds = [
        Cold(1, 250.0, phases={"machines": 5.0, "cluster": 120.0}, load=1.5),
        Cold(2, 90.0, failed="up: no", boot_retries=3),
        Cold(3, 260.0, phases={"machines": 7.0, "cluster": 130.0}, boot_retries=1),
    ]
    assert soak.soak_table(colds).splitlines() == [
        "          up s  machines  cluster  retries  load",
        "1          250         5      120        0   1.5",
        "2 FAILED    90         -        -        3   0.0",
        "3          260         7      130        1   0.0",
        "median     255         6      125",
        "slowest    260         7      130",
    ]


def test_a_bring_up_that_fails_keeps_its_log(fake: Callable[[str], BenchLab]) -> None:
    lab = fake("echo 'error: worker1 does not boot'; exit 1")
    cold = soak.bring_up(lab, 3, verify=False)
    assert cold.failed == "up: worker1 does not boot"
    assert "does not boot" in (lab.logs / "03-up.log").read_text()


def test_a_failed_verify_is_a_failure(fake: Callable[[str], BenchLab], paths: LabPaths) -> None:
    lab_state(paths)
    lab = fake("test $1 = verify && { echo '20 claims hold, 1 fail'; exit 1; }; true")
    assert soak.bring_up(lab, 1, verify=True).failed == "verify: 20 claims hold, 1 fail"


def pod(restarts: int) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "kube-system", "name": "coredns-1"},
        "status": {"containerStatuses": [{"name": "coredns", "restartCount": restarts}]},
    }


@contextmanager
def opened(_paths: LabPaths, _netns: str) -> Iterator[None]:
    yield None


def watched(paths: LabPaths, monkeypatch: pytest.MonkeyPatch, answers: list[Any]) -> soak.Steady:
    """A watch of a lab whose API gives these answers, and the last one from then on."""
    lab_state(paths)

    def read(_path: str) -> dict[str, Any]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"items": [pod(answer)]}

    monkeypatch.setattr(soak, "connect", lambda _paths, _netns: nullcontext(SimpleNamespace(read=read)))
    monkeypatch.setattr(soak, "PROBE_S", 0.0)
    monkeypatch.setattr(soak, "LOOK_S", 0.0)
    monkeypatch.setattr(soak, "running", lambda _lab: {"etcd": 4711})
    return soak.watch(BenchLab(paths, paths.project), minutes=0.05 / 60)


def test_a_steady_lab_has_no_troubles(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(paths, monkeypatch, [2])
    assert (seen.troubles, seen.restarts_before) == ((), 2)
    assert seen.probes >= 1 and seen.p99_s <= seen.max_s < soak.ANSWER_S


def test_restarts_and_silence_are_troubles(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = ClusterError("the API server does not answer: timed out")
    seen = watched(paths, monkeypatch, [0, silence, 0, 1])
    assert seen.troubles == (
        "after 0 s the API server does not answer: timed out",
        "restarts of kube-system/coredns-1/coredns: 0 -> 1",
    )


def test_the_processes_of_a_hosted_control_plane_are_known_by_their_program(paths: LabPaths) -> None:
    folder = paths.control_plane / "bin"
    folder.mkdir(parents=True)
    (folder / "etcd").symlink_to("/bin/cat")
    process = subprocess.Popen([str(folder / "etcd")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        # Popen returns before the kernel has laid out the new command line; the answer comes after it.
        assert process.stdout.readline() == b"ready\n"
        assert soak.running(BenchLab(paths, paths.project)) == {"etcd": process.pid}
        process.stdin.close()


def test_asking_one_by_one_sees_the_same_lab_with_many_more_commands() -> None:
    recorded = load_recording(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
    asked: list[str] = []

    class Nodes:
        def batch(self, node: str, commands: dict[str, str]) -> dict[str, Output]:
            """What the recording has for the fact whose command this is, on the node or in a pod's namespace."""
            (command,) = commands.values()
            asked.append(command)
            words = shlex.split(command) if command.startswith("nsenter") else []
            facts = recorded.netns_facts[node][words[1].rpartition("/")[2]] if words else recorded.node_facts[node]
            wanted = words[4] if words else command
            facts_there = (fact for where in ("node", "pod") for fact in discover(where))
            name = next(fact.name for fact in facts_there if fact.command_for(known_parts()) == wanted)
            return {"it": facts.outputs[name]}

    def api(path: str) -> Output:
        return recorded.api.outputs[next(fact.name for fact in discover("api") if fact.command == path)]

    asker = look.Asker(cast("Hosts", Nodes()), api)
    assert failures(read_only()[:20], look.asking(recorded, asker)) == {}
    assert asker.asked > len(asked) > 2 * len(recorded.node_facts)


WRK = """\
Running 20s test @ http://192.168.77.20:80/
  1 threads and 8 connections
  4321 requests in 20.05s, 1.73MB read
"""


def test_wrk_is_read() -> None:
    assert ingress.parse(f"{WRK}Requests/sec:    215.51\n") == ingress.Wrk(215.51, 4321, 0, 0)
    more = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\nRequests/sec: 1.5\n"
    assert ingress.parse(WRK + more) == ingress.Wrk(1.5, 4321, 10, 7)
    with pytest.raises(LabError, match="wrk printed no figures: unable to connect"):
        ingress.parse("unable to connect")


def test_the_plain_nginx_has_the_same_pods_behind_it() -> None:
    world = ingress_lab.World()
    (_, conf), (_, pod) = ingress.plain(world.session())
    text = conf["data"]["nginx.conf"]
    assert all(f"server {address}:8080;" in text for address in ingress_lab.PODS[APP1][:2])
    assert pod["spec"]["nodeName"] == ingress_lab.FIRST.name
    assert pod["spec"]["containers"][0]["ports"][0]["hostPort"] == ingress.PLAIN_PORT


def test_what_is_lost_while_things_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 2.0)
    assert ingress.changing(ingress_lab.World().session(), 1).lost == ()
    found = ingress.changing(ingress_lab.World(loses=True).session(), 3)
    assert set(found.lost) <= {"502"} and found.sent >= len(found.lost)
