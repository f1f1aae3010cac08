"""Upstream's end-to-end tests (e2e.test) on a running lab."""
