"""Honest evaluation: one set of definitions, every method on the same rows, in the same run.

Start with `definitions` (what is predicted, for whom, from when), then `methods` (one file each),
`runner` (one process for each cell) and `report` (docs/evaluation.md).
"""
