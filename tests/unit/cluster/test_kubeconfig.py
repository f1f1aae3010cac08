"""A lab's entries in the text of a kubeconfig: what is added, what is removed again, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hoplab.cluster import kubeconfig
from hoplab.cluster.kubeconfig import SKELETON, Entries
from hoplab.core.errors import FileError
from tests.support.kubeconfigs import KUBECTLS, OWN

LAB = kubeconfig.entries(OWN, owner="dev-1a2b3c", name="hoplab-dev", server="https://127.0.0.1:23456")
OTHER = kubeconfig.entries(OWN, owner="blue-1a2b3c", name="hoplab-blue", server="https://127.0.0.1:23457")

BY_HAND = """\
# my clusters -- keep!
kind: Config
apiVersion: "v1"   # quoted
users:

  - name: 'me'
    user: {exec: {command: aws, args: [eks, get-token]}}
  # - name: an old one
  -
    name: script
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: sh
        args:
        - -c
        - |
          echo "- name: hoplab-dev"

clusters: [{name: "prod", cluster: {server: "https://prod.example.org:6443"}}]  # one
contexts: []   # none yet
x-own: {deep: [1, 2]}
# the end
"""
FILES = {
    "kubectl's own": KUBECTLS,
    "by hand": BY_HAND,
    "without an end of line": KUBECTLS.rstrip("\n"),
    "with CRLF": KUBECTLS.replace("\n", "\r\n"),
    "with a BOM": "\ufeff" + KUBECTLS,
    "with a start of document": "---\n" + KUBECTLS,
    "with empty lists": SKELETON,
    "with other letters": KUBECTLS.replace("prod", "Köln"),
}


def read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_entries_keep_the_name_that_the_certificate_is_for() -> None:
    assert LAB.cluster == {
        "certificate-authority-data": "Q0E=",
        "server": "https://127.0.0.1:23456",
        "tls-server-name": "192.168.77.1",
        "extensions": [{"name": "hoplab", "extension": {"lab": "dev-1a2b3c"}}],
    }
    assert LAB.user == {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}


@pytest.mark.parametrize(
    "own", ["", "clusters: 5", "{", OWN.replace("https", "http"), OWN.replace("@dev\nusers", "\nusers")]
)
def test_a_lab_without_a_usable_kubeconfig_has_no_entries(own: str) -> None:
    with pytest.raises(FileError):
        kubeconfig.entries(own, owner="x", name="y", server="https://127.0.0.1:1")


def test_a_kubeconfig_of_the_lab_alone_has_it_as_current_context() -> None:
    config = read(kubeconfig.alone(LAB))
    assert config["current-context"] == "hoplab-dev"
    assert config["contexts"] == [{"name": "hoplab-dev", "context": {"cluster": "hoplab-dev", "user": "hoplab-dev"}}]
    assert [config["clusters"][0]["cluster"], config["users"][0]["user"]] == [LAB.cluster, LAB.user]


@pytest.mark.parametrize("before", FILES.values(), ids=FILES.keys())
def test_what_was_added_is_removed_and_the_rest_is_byte_for_byte_the_same(before: str) -> None:
    after = kubeconfig.merged(before, LAB)
    mine, now = read(before), read(after)
    for section, item in LAB.items().items():
        assert now[section] == [*(mine.get(section) or []), item]
    assert now.get("current-context") == mine.get("current-context"), "nobody's current context changes"
    assert kubeconfig.merged(after, LAB) == after
    both = kubeconfig.merged(after, OTHER)
    assert kubeconfig.without(kubeconfig.without(both, LAB.owner)[0], OTHER.owner) == (before, ["hoplab-blue"])
    assert kubeconfig.without(both, OTHER.owner) == (after, ["hoplab-blue"])


def test_every_line_of_others_stays(golden: Any) -> None:
    golden("kubeconfig-by-hand.yaml", kubeconfig.merged(BY_HAND, LAB))


def test_empty_text_becomes_the_lab_alone() -> None:
    assert kubeconfig.merged("", LAB) == kubeconfig.alone(LAB)
    assert kubeconfig.merged("# mine", LAB) == "# mine\n" + kubeconfig.alone(LAB)
    assert kubeconfig.without(kubeconfig.alone(LAB), LAB.owner) == (SKELETON, ["hoplab-dev"])


def test_a_renewed_lab_replaces_its_entries() -> None:
    before = kubeconfig.merged(kubeconfig.merged(KUBECTLS, LAB), OTHER)
    renewed = Entries(LAB.owner, LAB.name, {**LAB.cluster, "server": "https://127.0.0.1:20001"}, LAB.user)
    config = read(kubeconfig.merged(before, renewed))
    assert {item["name"]: item["cluster"]["server"] for item in config["clusters"]} == {
        "prod": "https://prod.example.org:6443",
        "hoplab-dev": "https://127.0.0.1:20001",
        "hoplab-blue": "https://127.0.0.1:23457",
    }
    assert len(config["users"]) == 3 and len(config["contexts"]) == 3


def test_what_the_user_made_of_the_context_stays() -> None:
    """kubectl config rename-context, use-context, set-context --current --namespace; then the lab starts again."""
    config = read(kubeconfig.merged(KUBECTLS, LAB))
    config["contexts"][1]["name"] = config["current-context"] = "mylab"
    config["contexts"][1]["context"]["namespace"] = "hoplab-verify"
    mine = yaml.safe_dump(config)
    assert kubeconfig.merged(mine, LAB) == mine
    assert kubeconfig.context_of(mine, LAB.owner) == "mylab" and kubeconfig.context_of(mine, OTHER.owner) == ""
    renewed = Entries(LAB.owner, LAB.name, {**LAB.cluster, "server": "https://127.0.0.1:20001"}, {"token": "new"})
    after = read(kubeconfig.merged(mine, renewed))
    assert (after["contexts"], after["current-context"]) == (config["contexts"], "mylab")
    assert after["clusters"][1]["cluster"]["server"] == "https://127.0.0.1:20001"
    assert after["users"][1]["user"] == {"token": "new"}


def test_a_file_that_kubectl_wrote_anew_gives_the_lab_up_all_the_same() -> None:
    """kubectl sorts keys and drops comments; a user renames the context, makes it the current one and adds another."""
    config = read(kubeconfig.merged(KUBECTLS, LAB))
    config["contexts"][1]["name"] = config["current-context"] = "mylab"
    config["contexts"].append({"name": "sys", "context": {"cluster": LAB.name, "namespace": "a", "user": LAB.name}})
    after, names = kubeconfig.without(yaml.safe_dump(config, sort_keys=True), LAB.owner)
    assert names == ["mylab", "sys"]
    assert read(after) == {**read(KUBECTLS), "current-context": ""}


def test_a_lab_of_another_checkout_keeps_its_context() -> None:
    text = kubeconfig.merged(KUBECTLS, LAB)
    assert kubeconfig.name_for(text, "dev-ffffff", "hoplab-dev", "hoplab-dev-ffffff") == "hoplab-dev-ffffff"
    assert kubeconfig.name_for(text, "dev-1a2b3c", "hoplab-dev", "hoplab-dev-1a2b3c") == "hoplab-dev"
    assert kubeconfig.name_for("", "dev-ffffff", "hoplab-dev", "hoplab-dev-ffffff") == "hoplab-dev"
    assert kubeconfig.without(text, "dev-ffffff") == (text, [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "not YAML: line 1: "),
        ("a: b\n\tc: d\n", "not YAML: line 2: "),
        ("a: \0", "not YAML"),
        ("- a\n", "not a kubeconfig"),
        ("clusters: {a: b}\n", "not a kubeconfig"),
        ("clusters: [a]\n", "not a kubeconfig"),
        ("users: []\nusers: []\n", "not YAML: line 2: users is there twice"),
        (f"{KUBECTLS}---\n{KUBECTLS}", "not YAML"),
        ('{"clusters": [], "users": []}', "written in braces, as JSON is"),
        ("clusters: &all []\ncontexts: *all\n", "written in a way that can't be edited"),
        ("a: " + "[" * 5000, "not YAML"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, why: str) -> None:
    with pytest.raises(FileError) as refused:
        kubeconfig.merged(text, LAB)
    assert refused.value.message.startswith(why)


NAMES = st.text("abc-:#'\" é|", min_size=1, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES | st.just("two\nlines\n\n"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
ITEMS = st.lists(st.fixed_dictionaries({"name": NAMES, "user": VALUES}), max_size=3)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries({"clusters": ITEMS, "contexts": ITEMS, "users": ITEMS, "own": VALUES}),
    st.permutations(["clusters", "contexts", "users", "own"]),
    st.sampled_from([None, False, True]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_kubeconfig_is_given_back_or_refused(
    config: dict[str, Any], order: list[str], flow: bool | None, newline: str
) -> None:
    text = yaml.safe_dump({key: config[key] for key in order}, sort_keys=False, default_flow_style=flow)
    text = text.replace("\n", newline)
    try:
        after = kubeconfig.merged(text, LAB)
    except FileError:
        assert flow is True  # the whole file in braces, as JSON is
        return
    assert kubeconfig.without(after, LAB.owner) == (text, ["hoplab-dev"])
