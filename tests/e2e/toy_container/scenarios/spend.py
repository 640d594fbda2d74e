"""A scenario whose target is never computed."""

TASK = "binary"


def target_fn(history, future, attributes, ctx):
    """Drop every example."""
    return None
