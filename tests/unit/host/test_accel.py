"""KVM or emulation, with QEMU played by a shell script."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import accel
from hoplab.host.accel import AccelChoice, probe, resolve

BOOTS = "echo '[ 0.9] Run /init as init process'; exec sleep 60"
ASSERTION = "echo '[ 0.1] booting'; echo 'kvm_buf_set_msrs: Assertion failed.' >&2; exit 1"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kvm = tmp_path / "kvm"
    kvm.touch()
    monkeypatch.setattr(accel, "KVM", kvm)
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"a kernel")
    return kernel


def fake_qemu(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(accel, "QEMU", ("sh", "-c", script))


def test_a_kernel_that_reaches_its_init_means_kvm(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(monkeypatch, BOOTS)
    choice = probe(kernel, kernel)
    assert choice.accel == "kvm"
    assert choice.reason.startswith("the kernel boots under KVM (")


def test_a_qemu_that_ends_means_emulation_and_its_words_are_the_reason(
    kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_qemu(monkeypatch, ASSERTION)
    choice = resolve("auto", kernel, kernel)
    assert choice.accel == "tcg"
    assert "QEMU ended; last words: kvm_buf_set_msrs: Assertion failed." in choice.reason


def test_a_kernel_that_gets_stuck_means_emulation(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "PROBE_DEADLINE_S", 0.5)
    fake_qemu(monkeypatch, "echo '[ 0.1] stuck here'; exec sleep 60")
    choice = probe(kernel, kernel)
    assert choice.accel == "tcg"
    assert "last words: [ 0.1] stuck here" in choice.reason


def test_a_host_without_kvm_device_starts_nothing(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "KVM", kernel.with_name("none"))
    fake_qemu(monkeypatch, BOOTS)
    assert probe(kernel, kernel) == AccelChoice("tcg", f"there is no {kernel.with_name('none')}")


def test_the_answer_is_kept_for_this_kernel_and_this_boot_of_the_host(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_qemu(monkeypatch, BOOTS)
    assert resolve("auto", kernel, kernel).accel == "kvm"
    fake_qemu(monkeypatch, ASSERTION)
    assert resolve("auto", kernel, kernel).accel == "kvm"  # not asked again
    kernel.write_bytes(b"another kernel")
    assert resolve("auto", kernel, kernel).accel == "tcg"
    fake_qemu(monkeypatch, BOOTS)
    reboot = tmp_path / "boot_id"
    reboot.write_text("another boot\n")
    monkeypatch.setattr(accel, "BOOT_ID", reboot)
    assert resolve("auto", kernel, kernel).accel == "kvm"


@pytest.mark.parametrize("garbage", ["", "{}", "[]", '{"seen": 1}', "\x00"])
def test_a_damaged_cache_is_probed_again(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, garbage: str
) -> None:
    (tmp_path / "cache" / "hoplab").mkdir(parents=True)
    (tmp_path / "cache" / "hoplab" / "accel.json").write_text(garbage)
    fake_qemu(monkeypatch, BOOTS)
    assert resolve("auto", kernel, kernel).accel == "kvm"


def test_a_spec_that_asks_for_emulation_probes_nothing(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(monkeypatch, BOOTS)
    assert resolve("tcg", kernel, kernel) == AccelChoice("tcg", "the spec asks for emulation")


def test_a_spec_that_asks_for_kvm_needs_kvm(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(monkeypatch, ASSERTION)
    with pytest.raises(HostError, match="the spec asks for KVM, which does not work here: ") as error:
        resolve("kvm", kernel, kernel)
    assert "set lab:accel to auto" in error.value.remedy


def test_a_probe_without_qemu_has_a_remedy(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "QEMU", ("/nonexistent/qemu",))
    with pytest.raises(HostError, match="QEMU is not installed") as error:
        probe(kernel, kernel)
    assert error.value.remedy == "apt-get install --no-install-recommends qemu-system-x86"
