"""Faults on demand: what they are, where they strike, how they are asked for."""
