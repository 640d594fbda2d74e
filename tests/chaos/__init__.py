"""Machinery of the signal matrix and of the chaos run.

Processes that die, on an account that misbehaves.

`location.py` is a small code location of its own, `chaos_job.py` what its job services run,
`zygote.py` forks run workers, `stand.py` is the account with everything around it, `matrix.py` and
`run.py` are the two experiments, and `audit.py` judges them without any of the client's code.
"""
