"""How long to fuzz, and the cases found earlier, which are replayed first."""

import json
import os
from pathlib import Path

import hypothesis

# A few seconds for each property; MONAD_FUZZ_EXAMPLES=50000 makes a night of it.
EXAMPLES = int(os.environ.get("MONAD_FUZZ_EXAMPLES", "300"))
CORPUS = Path(__file__).parents[3] / "data" / "fuzz"

hypothesis.settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def corpus(name):
    """Return the cases that once failed, or that are likely to: a list of JSON values."""
    return json.loads((CORPUS / f"{name}.json").read_text())
