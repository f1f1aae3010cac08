"""The lab as Pulumi resources."""
