"""Job services without any isolation: the last resort must do the same visible work."""

from concurrent.futures import ThreadPoolExecutor


def test_paths_of_the_specification_work(plain_account):
    """Stage, image and token paths are mapped in command, args and environment."""
    code = (
        "import hello, os, sys\n"
        "open(sys.argv[1] + '/plain.txt', 'w').write(hello.VALUE)\n"
        "print(os.path.exists(os.environ['COPY']), os.environ['SNOWFLAKE_SERVICE_NAME'],"
        " len(open(os.environ['SNOWFLAKE_SESSION_TOKEN_PATH']).read()) > 20)\n"
    )
    name = plain_account.execute(
        code, "/app/monad_stage", env={"COPY": "/app/monad_stage/plain.txt"}
    )
    plain_account.wait(name)
    assert plain_account.logs(name) == f"True {name} True"
    rows = plain_account.rows("list @monad_stage")
    assert [row["name"] for row in rows] == ["monad_stage/plain.txt"]


def test_fifty_job_services_at_once(plain_account):
    """Fifty short job services all end as DONE with their log."""
    plain_account.rows("alter compute pool cpu_pool set max_nodes = 20", "ADMIN")

    def run(number):
        connection = plain_account.connect()
        cursor = connection.cursor()
        spec = plain_account.spec(f"print({number})")
        cursor.execute(
            f"execute job service in compute pool cpu_pool name = many{number}"
            f" from specification $${spec}$$"
        )
        call = f"call system$get_service_logs('many{number}', '0', 'main')"
        return cursor.execute(call).fetchone()[0]

    with ThreadPoolExecutor(50) as pool:
        logs = list(pool.map(run, range(50)))
    assert logs == [str(number) for number in range(50)]
    rows = plain_account.rows("show job services like 'MANY%'")
    assert {row["status"] for row in rows} == {"DONE"}
