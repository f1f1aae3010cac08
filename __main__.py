"""The lab as a Pulumi program: stack config -> spec -> plan -> lab. It does not know which engine runs it."""

import pulumi

from hoplab.infra.context import PulumiProgress, resolve
from hoplab.infra.lab import Lab, LabArgs
from hoplab.paths import LabPaths
from hoplab.spec import load_spec

paths = LabPaths(pulumi.get_stack())
spec = load_spec(paths.lab, paths)
context = resolve(spec, paths, PulumiProgress())
lab = Lab(paths.lab, LabArgs.of(context, paths))

pulumi.export("uri", context.uri)
pulumi.export("image", context.image.digest)
pulumi.export("network", lab.network_name)
pulumi.export("nodes", lab.nodes)
