"""Runners: what really runs a job service's containers. `base` is the interface."""
