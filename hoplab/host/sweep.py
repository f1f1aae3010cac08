"""Removes libvirt objects by name: for labs whose own record of what they made can't be trusted."""

from __future__ import annotations

from contextlib import suppress

import libvirt

from hoplab.host.machines import connected


def sweep(uri: str, lab_id: str) -> list[str]:
    """Remove every domain, network and pool (with its volumes) that carries the lab's id; says which.

    A lab's objects are called ``hoplab-<lab id>`` and ``hoplab-<lab id>-<node>``, so no other lab's is touched.
    """
    name = f"hoplab-{lab_id}"
    removed: list[str] = []
    with connected(uri) as connection:
        for domain in connection.listAllDomains():
            if domain.name().startswith(f"{name}-"):
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
                removed.append(f"machine {domain.name()}")
        for network in connection.listAllNetworks():
            if network.name() == name:
                if network.isActive():
                    network.destroy()
                network.undefine()
                removed.append(f"network {name}")
        for pool in connection.listAllStoragePools():
            if pool.name() == name:
                removed += _remove_pool(pool)
    return removed


def _remove_pool(pool: libvirt.virStoragePool) -> list[str]:
    removed = []
    with suppress(libvirt.libvirtError):  # its directory may be gone: then there is nothing to empty
        if not pool.isActive():
            pool.create()
        pool.refresh()
        for volume in pool.listAllVolumes():
            removed.append(f"volume {volume.name()}")
            volume.delete()
    if pool.isActive():
        pool.destroy()
    pool.undefine()
    return [*removed, f"pool {pool.name()}"]
