"""Small statements: the time of a trivial query, and many sessions at once."""

import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal

import snowflake.connector

from bench.figures import Figure
from bench.local_account.accounts import admin, fakesnow_server, local_account

TRIVIAL_MS = 5.0
ROUNDS, PER_ROUND = 8, 100
SESSIONS, STATEMENTS = 64, 500
PROCESSES = 4


def trivial_query() -> list[Figure]:
    """Time SELECT of a constant through the connector, in alternating rounds.

    The quietest round of each counts: on a shared machine the others measure its neighbours.
    """
    ours, theirs = [], []
    with local_account() as account, fakesnow_server() as (arguments, _):
        for _ in range(ROUNDS):
            ours.append(_times(admin(account)))
            theirs.append(_times(arguments))
    best, other = (min(rounds, key=statistics.median) for rounds in (ours, theirs))
    peer = f"fakesnow's server {statistics.median(other):.2f} ms"
    note = f"quietest of {ROUNDS} rounds of {PER_ROUND}"
    return [
        Figure("trivial query, p50", statistics.median(best), "ms", TRIVIAL_MS, False, peer, note),
        Figure("trivial query, p95", statistics.quantiles(best, n=20)[-1], "ms"),
    ]


def _times(arguments: dict) -> list[float]:
    with snowflake.connector.connect(**arguments) as connection:
        cursor = connection.cursor()
        times = []
        for index in range(20 + PER_ROUND):
            started = time.perf_counter()
            assert cursor.execute(f"select {index}").fetchone() == (index,)
            times.append((time.perf_counter() - started) * 1000)
    return times[20:]


def many_sessions() -> list[Figure]:
    """Run mixed statements in many sessions at once and check every answer."""
    with local_account() as account:
        arguments = admin(account)
        with snowflake.connector.connect(**arguments) as connection:
            connection.cursor().execute("create table shared (session int, step int)")
        started = time.perf_counter()
        groups = [list(range(n, SESSIONS, PROCESSES)) for n in range(PROCESSES)]
        with ProcessPoolExecutor(PROCESSES) as pool:
            found = list(pool.map(_run_group, [(arguments, group) for group in groups]))
        seconds = time.perf_counter() - started
        with snowflake.connector.connect(**arguments) as connection:
            rows = connection.cursor().execute("select count(*) from shared").fetchone()
    errors = [text for group in found for text in group[0]]
    wrong = [text for group in found for text in group[1]]
    expected = SESSIONS * (STATEMENTS // len(MIX))
    if rows != (expected,):
        wrong.append(f"shared table has {rows} rows, {expected} were inserted")
    for text in (errors + wrong)[:10]:
        print(f"  {text}")
    count = SESSIONS * STATEMENTS
    note = f"{count} statements in {seconds:.0f} s, {count / seconds:.0f}/s"
    return [
        Figure("64 sessions x 500 statements: errors", len(errors), "", 0, note=note),
        Figure("64 sessions x 500 statements: wrong answers", len(wrong), "", 0),
    ]


def _run_group(work: tuple[dict, list[int]]) -> tuple[list[str], list[str]]:
    arguments, sessions = work
    errors: list[str] = []
    wrong: list[str] = []
    threads = [
        threading.Thread(target=_run_session, args=(arguments, session, errors, wrong))
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors, wrong


def _run_session(arguments: dict, session: int, errors: list[str], wrong: list[str]) -> None:
    try:
        with snowflake.connector.connect(**arguments) as connection:
            cursor = connection.cursor()
            cursor.execute(f"create table own_{session} (a int, b varchar, c number(10, 2))")
            for step in range(STATEMENTS):
                _run_statement(cursor, session, step, errors, wrong)
    except Exception as error:
        errors.append(f"session {session}: {error}")


def _run_statement(cursor, session: int, step: int, errors: list[str], wrong: list[str]) -> None:
    sql, expected = MIX[step % len(MIX)](session, step)
    try:
        answer = cursor.execute(sql).fetchall()
    except snowflake.connector.errors.ProgrammingError as error:
        answer = error.errno
        if not isinstance(expected, int):
            errors.append(f"session {session}, {sql}: {error}")
            return
    if expected is not None and answer != expected:
        wrong.append(f"session {session}, {sql}: {answer}, not {expected}")


def _written(step: int) -> int:
    """Return how many rows of its own table a session has inserted before a step."""
    return step // len(MIX) + (1 if step % len(MIX) > 1 else 0)


# Statement and expected rows; a number is the errno of a statement that must fail.
MIX = (
    lambda s, n: (f"select {s} * 1000 + {n}, 'text {n}'", [(s * 1000 + n, f"text {n}")]),
    lambda s, n: (f"insert into own_{s} values ({n}, 'row {n}', {n}.25)", [(1,)]),
    lambda s, n: (f"select count(*) from own_{s}", [(_written(n),)]),
    lambda s, n: (f"select c from own_{s} where a = {n - 2}", [(Decimal(f"{n - 2}.25"),)]),
    lambda s, n: (f"insert into shared values ({s}, {n})", [(1,)]),
    lambda s, n: (f"select count(*) from shared where session = {s}", [(n // len(MIX) + 1,)]),
    lambda s, n: (f"update own_{s} set b = 'new {n}' where a = {n - 5}", [(1, 0)]),
    lambda s, n: (f"select b from own_{s} where a = {n - 6}", [(f"new {n - 1}",)]),
    lambda s, n: (f"select * from missing_{s}_{n}", 2003),
    lambda s, n: (f"show tables like 'OWN_{s}' in schema bench.s", None),
)
