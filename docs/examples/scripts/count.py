"""Count words: runs in the container, with the standard library and the two staged helpers."""

import sys
from collections import Counter
from pathlib import Path

from job_support import job_run

output = Path(sys.argv[1])
with job_run(script="count", output=output) as job:
    counts = Counter(sys.argv[2].split())
    output.mkdir(parents=True, exist_ok=True)
    lines = [f"{word}\t{number}\n" for word, number in sorted(counts.items())]
    (output / "counts.tsv").write_text("".join(lines))
    job.finish(facts={"row_count": len(counts)})
