from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from hoplab.infra.cloudinit import CloudInit, rekeyed, render
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import Ipv6Spec, LabSpec

PLAN = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="tcg")
NODE = PLAN.nodes[0]
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n-----END OPENSSH PRIVATE KEY-----\n"


def rendered(**changed: Any) -> CloudInit:
    return render(
        replace(NODE, **changed),
        PLAN.network,
        user_public="ssh-ed25519 AAAAuser lab@dev-1a2b3c",
        host_private=PRIVATE,
        host_public="ssh-ed25519 AAAAhost worker1",
    )


def test_seed(golden: Callable[[str, str], None]) -> None:
    seed = rendered()
    golden("cloudinit_user_data.yaml", seed.user_data)
    golden("cloudinit_meta_data.yaml", seed.meta_data)
    golden("cloudinit_network_config.yaml", seed.network_config)


def test_a_machine_of_both_families_has_an_address_and_a_way_out_of_each() -> None:
    plan = plan_lab(LabSpec("dev", ipv6=Ipv6Spec()), lab_id="dev-1a2b3c", accel="tcg")
    seed = render(plan.nodes[0], plan.network, user_public="u", host_private=PRIVATE, host_public="h")
    eth0 = yaml.safe_load(seed.network_config)["ethernets"]["eth0"]
    assert eth0["addresses"] == ["192.168.77.20/24", "fd00:77::20/64"]
    assert eth0["routes"] == [{"to": "0.0.0.0/0", "via": "192.168.77.1"}, {"to": "::/0", "via": "fd00:77::1"}]


def test_a_seed_with_other_keys_is_what_a_render_with_these_is() -> None:
    other = PRIVATE.replace("AAAA", "CCCC")
    keys = {"user_public": "ssh-ed25519 BBBB lab@x", "host_private": other, "host_public": "ssh-ed25519 DDDD worker1"}
    assert rekeyed(rendered(), NODE.name, **keys) == render(NODE, PLAN.network, **keys)


def test_the_host_key_arrives_unchanged_and_alone() -> None:
    config = yaml.safe_load(rendered().user_data)
    assert config["ssh_keys"] == {"ed25519_private": PRIVATE, "ed25519_public": "ssh-ed25519 AAAAhost worker1"}
    assert config["ssh_deletekeys"] is False
    assert "ssh_genkeytypes" not in config


def test_a_mac_of_digits_only_stays_a_text() -> None:
    seed = rendered(mac="52:54:00:12:34:56")  # YAML 1.1 would read it as a number of base 60
    assert yaml.safe_load(seed.network_config)["ethernets"]["eth0"]["match"]["macaddress"] == "52:54:00:12:34:56"


def test_the_seed_is_applied_again_when_it_changed() -> None:
    first = yaml.safe_load(rendered().meta_data)["instance-id"]
    assert yaml.safe_load(rendered().meta_data)["instance-id"] == first
    assert yaml.safe_load(rendered(prefix=25).meta_data)["instance-id"] != first
