"""Compute pools: states, nodes and statements."""
