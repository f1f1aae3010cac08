"""What a load balancer promises about the addresses it gives to services.

One load balancer is one module of this folder, found by its name in the spec.
"""
