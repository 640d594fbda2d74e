"""What the client adds to a plain EXECUTE JOB SERVICE, measured beside one in the same run."""

from bench.pipes.overheads import overheads

PARTS = {"overheads": overheads}
