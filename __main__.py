"""The lab as a Pulumi program: stack config -> spec -> plan -> lab. It does not know which engine runs it."""

import pulumi

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.infra.components import Lab, LabArgs
from hoplab.infra.context import PulumiProgress
from hoplab.lab.context import resolve
from hoplab.lab.resources import Cluster, ClusterArgs, Host, Member
from hoplab.lab.spec_file import load_spec

paths = LabPaths(pulumi.get_stack())
try:
    spec = load_spec(paths)
    context = resolve(spec, paths, PulumiProgress())
except LabError as error:
    raise pulumi.RunError(error.whole()) from error

host = Host(paths.lab, paths.lab, pulumi.ResourceOptions(protect=spec.protect or None))


def member(node: str, machine: pulumi.Input[str], opts: pulumi.ResourceOptions) -> Member:
    return Member(node, paths.lab, machine, host=host, opts=opts)


lab = Lab(paths.lab, LabArgs.of(context, paths, host, member, rolling=paths.state.exists()))
args = ClusterArgs.of(context, paths, lab.machines)
cluster = Cluster(paths.lab, args, host=host, members=lab.members, opts=pulumi.ResourceOptions(parent=lab))

pulumi.export("uri", context.uri)
pulumi.export("image", context.image.digest)
pulumi.export("network", lab.network_name)
pulumi.export("nodes", lab.nodes)
pulumi.export("kubeconfig", pulumi.Output.secret(cluster.kubeconfig))
pulumi.export("sshKey", pulumi.Output.secret(context.keys.user_private.read_text()))
