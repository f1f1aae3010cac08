"""The address of the dynamic providers in stacks that were made before they moved to ``hoplab.lab.resources``.

Pulumi keeps a provider in its state as a pickle, which names the module it was in. Deleting such a resource loads it.
"""

from hoplab.lab.resources import ClusterProvider, HostProvider, MemberProvider

__all__ = ["ClusterProvider", "HostProvider", "MemberProvider"]
