"""Archives of container images, made in a test: OCI layouts and `docker save`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from hoplab.image import archives, oci
from hoplab.spec.catalog import ArchivedImage

CNI = "quay.io/calico/cni:v3.32.1"
TABLE = [
    ArchivedImage("cni_calico", CNI, "sha256:" + "1" * 64),
    ArchivedImage("cni_calico", "quay.io/calico/node:v3.32.1", "sha256:" + "2" * 64),
    ArchivedImage("ingress_nginx", "docker.io/nginx/nginx-ingress:5.5.3", "sha256:" + "3" * 64),
]
Files = dict[str, bytes]


def blob(files: Files, media_type: str, data: bytes) -> dict[str, Any]:
    """Put a blob into an OCI layout; its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    files[f"blobs/sha256/{digest}"] = data
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def built(
    files: Files, architecture: str = "amd64", layers: tuple[bytes, ...] = (b"base", b"program")
) -> dict[str, Any]:
    """Put an image into an OCI layout; the descriptor of its manifest."""
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(files, oci.CONFIG, json.dumps(config).encode()),
        "layers": [blob(files, oci.LAYER, layer) for layer in layers],
    }
    return blob(files, oci.MANIFEST, json.dumps(manifest).encode())


def layout(files: Files, *entries: dict[str, Any]) -> Files:
    index = {"schemaVersion": 2, "manifests": list(entries)}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **files}


def named(entry: dict[str, Any], name: str, key: str = archives.NAMES[0]) -> dict[str, Any]:
    return entry | {"annotations": {key: name}}


def oci_files(name: str = CNI, architecture: str = "amd64") -> Files:
    files: Files = {}
    entry = named(built(files, architecture), name)
    return layout(files, entry)


def written(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def docker_files(name: str = "calico/cni:v3.32.1", layers: tuple[bytes, ...] = (b"base", b"program")) -> Files:
    """As `docker save` wrote it before it wrote OCI layouts."""
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diffs}}).encode()
    said = f"{hashlib.sha256(config).hexdigest()}.json"
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": said, "RepoTags": [name], "Layers": paths}]
    return {"manifest.json": json.dumps(manifest).encode(), said: config, **dict(zip(paths, layers, strict=True))}
