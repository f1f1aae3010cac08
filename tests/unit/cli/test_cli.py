"""The verbs as a person types them: help, errors, what is printed. Nothing real runs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.cli import maintain
from hoplab.cluster.converge import ConvergeResult
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.engine import Change
from hoplab.host.freeze import Hypervisor
from hoplab.lab import forwarder, lifecycle, port_forward, state
from hoplab.lab.checkpoint.manifest import Manifest
from hoplab.lab.spec_file import plan_lab
from hoplab.observe.recording_format import load
from hoplab.spec.model import LabSpec
from hoplab.verify import recording, runner
from tests.support.hurt import refused, without_nodes

VERBS = [name for name in cli.cli.commands if name not in {"kubectl", "image", "fleet", "checkpoint"}]
RECORDING = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
STATE = state.lab_state(
    plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="tcg"),
    libvirt_uri="test:///default",
    netns="",
    image="0123456789abcdef",
    image_bin=Path("/nowhere"),
)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, words, catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize("verb", VERBS)
def test_verb_help_explains_the_verb(verb: str) -> None:
    code, out = run(verb, "--help")
    assert code == 0
    assert f"Usage: ./lab {verb}" in out
    assert len(cli.cli.commands[verb].help or "") > 20


def test_group_has_all_verbs() -> None:
    daily = {"up", "preview", "status", "verify", "record", "ssh", "kubectl", "converge", "stop", "start", "destroy"}
    daily |= {"helm", "reset", "checkpoint", "diff", "watch", "graph", "capture", "trace", "conformance"}
    rare = {"compare", "pages", "practice", "forward", "doctor", "image", "fleet", "pulumi", "version", "test"}
    rare |= {"uri", "kubeconfig", "completion"}
    assert set(cli.cli.commands) == daily | rare
    assert set(maintain.pulumi.commands) == {"install", "env", "run", "export", "adopt"}


def test_help_lists_verbs_by_section_and_cuts_no_line_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out = run("--help")
    assert code == 0 and out.startswith("Usage: ./lab [OPTIONS] COMMAND [ARGS]...\n")
    sections = ["Make a lab", "Look at it", "Learn with it", "Many labs", "Maintain"]
    assert [line[:-1] for line in out.splitlines() if line.endswith(":") and line != "Options:"] == sections
    listed = re.findall(r"^  ([a-z]+) +\S.*\.$", out[out.index("Make a lab:") :], re.MULTILINE)
    assert sorted(listed) == sorted(cli.cli.commands)
    assert max(map(len, out.splitlines())) <= 80 and "..." not in out.partition("Make a lab:")[2]


def test_forward_prints_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    destination = port_forward.Destination(IPv4Address("192.168.77.20"), 30080)
    asked: list[port_forward.Wanted] = []

    def plan(wanted: list[port_forward.Wanted], _seen: object) -> tuple[port_forward.Forward, ...]:
        asked.extend(wanted)
        return (port_forward.Forward(8080, "shop/web:80", destination),)

    monkeypatch.setattr(state, "load_summary", lambda _: STATE)
    monkeypatch.setattr(state, "spec_notice", lambda *_: "")
    monkeypatch.setattr(port_forward, "look", lambda _: None)
    monkeypatch.setattr(port_forward, "plan", plan)
    monkeypatch.setattr(forwarder, "listen", lambda _: {})
    monkeypatch.setattr(forwarder.Forwarder, "run", lambda _: None)
    code, out = run("forward", "shop/web")
    assert (code, out) == (
        0,
        "http://127.0.0.1:8080  shop/web:80 (192.168.77.20:30080)\nuntil Ctrl-C\nended\n",
    )
    run("forward")
    assert asked == [port_forward.Wanted("shop/web"), port_forward.Wanted("ingress")]
    monkeypatch.setattr(state, "spec_notice", lambda *_: "Pulumi.dev.yaml has changed since `up`: cni.backend")
    assert run("forward")[1].startswith("note: Pulumi.dev.yaml has changed since `up`: cni.backend\n")


def test_main_prints_cause_remedy_and_log_of_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        error = LabError("the [disk] is full", remedy="free 3 GiB", log="/lab/log")
        error.exit_code = 7
        raise error

    monkeypatch.setattr(lifecycle, "up", refuse)
    monkeypatch.setattr(sys, "argv", ["lab", "up"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 7
    assert capsys.readouterr().err == "error: the [disk] is full\n  -> free 3 GiB\n  log: /lab/log\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which gives a folder away")
def test_main_names_who_owns_a_file_of_the_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "hoplab/checkpoints/dev-1a2b3c"))

    (tmp_path / "hoplab/checkpoints").mkdir(parents=True)
    os.chown(tmp_path / "hoplab/checkpoints", 4711, 4711)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lifecycle, "up", closed)
    monkeypatch.setattr(sys, "argv", ["lab", "up"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    folder = tmp_path / "hoplab"
    assert f"{folder}/checkpoints/dev-1a2b3c may not be used: {folder}/checkpoints belongs to 4711\n" in (
        capsys.readouterr().err
    )


def test_main_ends_with_130_on_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lifecycle, "up", interrupt)
    monkeypatch.setattr(sys, "argv", ["lab", "up"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "run the same command again to continue" in capsys.readouterr().err


def test_main_ends_with_2_on_unknown_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", "up", "--fast"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "No such option" in capsys.readouterr().err


def test_up_ends_with_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lifecycle.UpResult(
        replace(STATE, phases=(("machines", 4.0), ("cluster", 92.0))),
        (Change("create", "Domain", "worker1"), Change("same", "Network", "network")),
        ConvergeResult(changed=3, tasks=9, seconds=92.0),
    )
    monkeypatch.setattr(lifecycle, "up", lambda *_, **__: made)
    code, out = run("up")
    assert code == 0
    for words in ("worker2", "./lab ssh worker1", "./lab kubectl get pods -A", "kubernetes 1.37", "containerd 2."):
        assert words in out
    assert "changed   1 resources, 3 tasks" in out
    assert "took      machines 4s, cluster 1m32s" in out


def test_version_names_what_other_kubernetes_there_is() -> None:
    code, out = run("version")
    assert code == 0
    lines = out.splitlines()
    assert {"kubernetes 1.37.2", "etcd 3.7.0"} <= set(lines)
    assert lines[-1] == "with lab:kubernetes.version 1.36: coredns 1.14.2, etcd 3.6.8, kubernetes 1.36.3"


def test_up_says_which_checkpoint_it_started_from(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Manifest(
        format=1,
        name="up-0123456789ab",
        made=datetime(2026, 11, 28, 12, tzinfo=UTC),
        lab="dev",
        id=STATE.id,
        image="",
        spec="",
        roles="",
        hypervisor=Hypervisor("9.0.0", "7.2.22", "tcg", "emulated"),
        machines={},
        memory_mib=4096,
        files=(),
    )
    restored = replace(STATE, phases=(("check", 2.0), ("machines", 7.0)))
    result = lifecycle.UpResult(restored, (), ConvergeResult(changed=0, tasks=0, seconds=0.0), made)
    asked: list[bool] = []

    def up(*_: Any, fresh: bool, **__: Any) -> lifecycle.UpResult:
        asked.append(fresh)
        return result

    monkeypatch.setattr(lifecycle, "up", up)
    assert run("up")[1].splitlines()[-1] == "from checkpoint of 28 November, 9s"
    run("up", "--fresh")
    assert asked == [False, True]
    result = replace(result, checkpoint=replace(made, lab="dev-s1"))
    assert run("up")[1].splitlines()[-1] == "fork of dev-s1, from checkpoint of 28 November, 9s"


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1)])
def test_status_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, healthy: bool, code: int) -> None:
    row: dict[str, Any] = {"name": "worker1", "role": "worker", "address": "192.168.77.20", "machine": "shut off"}
    row |= {"ready": False, "kubelet": None, "podCIDR": None}
    seen = {"healthy": healthy, "api": "ready", "placement": "hosted", "accel": "tcg", "nodes": [row]}
    monkeypatch.setattr("hoplab.lab.status.status", lambda _paths: seen)
    ended, out = run("status")
    assert ended == code
    assert "shut off" in out and "NotReady" in out and "clock" not in out
    row |= {"clock": -3540}
    assert "note: the clock of worker1 is 3540 s behind or more; ./lab start sets it" in run("status")[1]
    ended, out = run("status", "--json")
    assert ended == code
    assert json.loads(out) == seen


def test_verify_passes_its_options_to_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def remember(paths: LabPaths, **options: Any) -> int:
        asked.append((paths.lab, options))
        return 1

    monkeypatch.setattr(runner, "run", remember)
    nothing = {"recording": None, "junit": None, "html": None, "as_json": False, "only": "", "cleanup": False}
    assert run("verify", "--lab", "blue", "--cleanup") == (1, "")
    run("verify", "--recording", "r.json", "--json", "--junit", "r.xml", "--html", "r.html", "-k", "nat")
    files = {"recording": Path("r.json"), "junit": Path("r.xml"), "html": Path("r.html")}
    assert asked == [
        ("blue", {**nothing, "cleanup": True}),
        ("dev", {**nothing, **files, "as_json": True, "only": "nat"}),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lab", "dev"), "--lab and --recording exclude each other: a recording is of one lab"),
        (("--cleanup",), "--recording and --cleanup exclude each other: a recording has no pods to remove"),
    ],
)
def test_verify_refuses_a_recording_with_options_of_a_lab(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("it went on"))
    code, out = run("verify", "--recording", "r.json", *words)
    assert code == 2 and said in out


def test_verify_accepts_a_recording_with_a_lab_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOPLAB_LAB", "blue")
    monkeypatch.setattr(runner, "run", lambda *_, **__: 0)
    assert run("verify", "--recording", "r.json") == (0, "")


def test_record_prints_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def record(paths: LabPaths, file: Path | None, *, force: bool, say: Callable[[str], None]) -> recording.Recording:
        say("looking at the nodes")
        asked.append((paths.lab, file, force))
        return recording.Recording(Path("blue.json"), load(RECORDING), 4096)

    monkeypatch.setattr(recording, "record", record)
    code, out = run("record", "--lab", "blue")
    assert code == 0
    assert "recorded blue.json: lab dev, 2 nodes, 11 pods, 4 KiB\n" in out
    assert "./lab verify --recording blue.json" in out
    run("record", "x.json", "--force")
    assert asked == [("blue", None, False), ("dev", Path("x.json"), True)]


def test_record_of_a_hurt_lab_is_written_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = without_nodes(load(RECORDING), "worker2")
    made = recording.Recording(Path("blue.json"), seen, 4096)
    monkeypatch.setattr(recording, "record", lambda *_, **__: made)
    code, out = run("record", "--lab", "blue")
    assert code == 1
    assert "recorded blue.json: lab dev, 1 node, " in out
    assert f"outage    {refused('worker2')}" in out


def test_preview_names_what_would_change(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (Change("update", "Domain", "worker1", "memory 2048 -> 3072"), Change("same", "Pool", "store"))
    monkeypatch.setattr(lifecycle, "preview", lambda *_: changes)
    code, out = run("preview")
    assert code == 0
    assert "update   Domain worker1  memory 2048 -> 3072" in out
    assert "1 would be changed, 1 unchanged" in out


@pytest.mark.parametrize(
    ("removed", "said"), [(["machine worker1"], "removed machine worker1"), ([], "there was nothing to remove")]
)
def test_destroy_prints_what_it_removed(monkeypatch: pytest.MonkeyPatch, removed: list[str], said: str) -> None:
    monkeypatch.setattr(lifecycle, "destroy", lambda *_: removed)
    assert said in run("destroy")[1]


def test_ssh_to_a_machine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "load_summary", lambda _paths: STATE)
    with pytest.raises(LabError, match="there is no machine 'worker9' in lab dev") as failed:
        run("ssh", "worker9")
    assert failed.value.remedy == "one of: worker1, worker2"


def test_ssh_uses_the_labs_own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(state, "load_summary", lambda _paths: STATE)
    monkeypatch.setattr("os.execvp", lambda _program, words: ran.append(words))
    run("ssh", "worker1", "ip", "-br", "addr")
    assert ran == [["ssh", "-F", str(LabPaths("dev").ssh_config), "worker1", "ip", "-br", "addr"]]


def test_kubectl_without_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "load_summary", lambda _paths: STATE)
    with pytest.raises(LabError, match="/nowhere/kubectl is gone") as failed:
        run("kubectl", "get", "pods", "-A")
    assert "./lab image build" in failed.value.remedy


def test_kubectl_passes_flags_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it keeps is with the lab: in the user's home another lab with the same address would find it."""
    ran: list[tuple[list[str], dict[str, str]]] = []
    (tmp_path / "kubectl").touch()
    monkeypatch.setattr(state, "load_summary", lambda _paths: replace(STATE, image_bin=str(tmp_path)))
    monkeypatch.setattr("os.execve", lambda _program, words, environment: ran.append((words, environment)))
    run("kubectl", "get", "pods", "-A", "--help")
    ((words, environment),) = ran
    assert words == ["kubectl", "get", "pods", "-A", "--help"]
    lab = LabPaths("dev").root
    assert [Path(environment[name]).parent for name in ("KUBECONFIG", "KUBECACHEDIR")] == [lab, lab]


def test_destroy_of_another_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def remember(paths: LabPaths, *_: Any) -> list[str]:
        asked.append(paths.lab)
        return []

    monkeypatch.setattr(lifecycle, "destroy", remember)
    run("destroy", "--lab", "blue")
    run("destroy")
    assert asked == ["blue", "dev"]


def test_lab_option_refuses_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab destroy --lab ../x` must never reach the part that removes folders."""
    never: Callable[..., Any] = lambda *_: pytest.fail("it went on")  # noqa: E731
    monkeypatch.setattr(lifecycle, "destroy", never)
    code, out = run("destroy", "--lab", "../x")
    assert code == 2
    assert "'../x' is not a lab's name" in out


def test_pulumi_export_writes_a_file_for_its_owner_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lifecycle, "exported", lambda _: {"version": 3})
    code, out = run("pulumi", "export", str(tmp_path / "state.json"))
    assert (code, json.loads((tmp_path / "state.json").read_text())) == (0, {"version": 3})
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0
    assert out.endswith(f"pulumi stack import --file {tmp_path}/state.json --stack dev\n")


def test_pulumi_env_prints_shell_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"PULUMI_BACKEND_URL": "file:///a lab/pulumi"}
    monkeypatch.setattr("hoplab.engine.pulumi_cli.environment", lambda _: told)
    assert run("pulumi", "env") == (0, "export PULUMI_BACKEND_URL='file:///a lab/pulumi'\n")


def test_pulumi_adopt_prints_where_the_old_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "adopt", lambda paths: paths.engine_state.with_suffix(".adopted"))
    code, out = run("pulumi", "adopt")
    assert code == 0 and "engine.adopted" in out


@pytest.mark.parametrize("flag", ["--fast", "--matrix"])
def test_all_is_for_the_usual_lab(flag: str) -> None:
    code, out = run("test", "--all", flag)
    assert code == 2 and "--all is for the usual lab, without --fast and --matrix" in out
