"""Metrics and naive baselines."""
