"""Splits, batches' schedule, budgets and the Lightning modules."""
