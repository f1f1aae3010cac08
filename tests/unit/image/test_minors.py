"""An older minor of Kubernetes beside the default: it shares what is not its own, and the default stays as it is."""

from __future__ import annotations

import pytest

from hoplab import image
from hoplab.image.store import Store
from hoplab.spec.catalog import components, tables
from tests.support.image_stages import fill

SILENT = image._Silent()


@pytest.mark.usefixtures("no_build")
def test_an_older_kubernetes_shares_what_is_not_its_own(cache: Store) -> None:
    older = components("1.36.3").shared
    usual = image.ensure_image("tcg", SILENT)
    had = {directory.name for directory in cache.stages.iterdir()}
    missing = image._find_stages(components().shared, cache).keys() - image._find_stages(older, cache).keys()
    assert missing == {"go.kubernetes", "go.etcd", "go.coredns", "containers"}
    with pytest.raises(AssertionError, match="something is built"):
        image.ensure_image("tcg", SILENT, kubernetes="1.36.3")
    fill(cache, older)
    made = {directory.name for directory in cache.stages.iterdir()} - had
    assert {name.rpartition("-")[0] for name in made} == {*(name.replace(".", "-") for name in missing), "node"}
    found = image.ensure_image("tcg", SILENT, kubernetes="1.36.3")
    assert (found.versions["kubernetes"], found.directory.name in made) == ("1.36.3", True)
    assert image.ensure_image("tcg", SILENT) == image.ensure_image("tcg", SILENT, kubernetes="1.37.2") == usual
    assert image.versions_of(found.digest)["kubernetes"] == "1.36.3"
    assert image.versions_of("gone") == image.component_versions() | {"kubernetes": "1.37.2"}


def test_prune_keeps_the_programs_of_every_kubernetes_in_the_table(cache: Store) -> None:
    for table in tables().values():
        fill(cache, table.shared)
    kept = image.ensure_image("tcg", SILENT, kubernetes="1.36.3")
    removed = [line.partition(" ")[0] for line in image.prune_images({kept.digest})]
    assert len(removed) == 3 and all(name.startswith("node-") for name in removed)
    assert image.ensure_image("tcg", SILENT, kubernetes="1.36.3") == kept
