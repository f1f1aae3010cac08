"""What changed between two snapshots of a lab, in the field's words; pure but for ``sides``.

``entries`` gives the things that facts show, ``compare`` pairs them, ``events`` groups what belongs together, ``text``
says it, ``sides`` finds what the user named.
"""
