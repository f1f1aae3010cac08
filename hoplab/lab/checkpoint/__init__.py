"""Checkpoints: a lab's machines with their memory, its control plane and its files, at one moment.

    create.py    write one while the lab runs
    restore.py   check one, and put the lab back to it; also a lab that was destroyed
    journal.py   the step between the old lab and the new, which a killed command leaves to the next one
    store.py     the folder of checkpoints
    manifest.py  what a checkpoint says of itself, and whether it fits this host
    usable.py    proof that a restored lab works

A private libvirtd keeps all of its definitions in the lab's folder, so putting that folder back brings back network,
pool and machines with the identities that the engine's state has.
"""
