"""The pytest plugin of the package, for runs from a checkout."""

pytest_plugins = ["hoplab.verify.plugin"]
