"""Checkpoint directories, predictions and their manifest."""
