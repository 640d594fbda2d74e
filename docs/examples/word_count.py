"""A project of its own that runs one asset as a job service; nothing of the pipeline is used."""

import dagster as dg
from dagster_snowflake import SnowflakeResource

from monad_dagster.pipes import PipesSPCSClient


@dg.asset
def word_count(context: dg.AssetExecutionContext, spcs: PipesSPCSClient):
    scripts = spcs.upload_scripts(dg.file_relative_path(__file__, "scripts"), to="word_count/code")
    invocation = spcs.run(
        context=context,
        command=["python", f"{scripts}/count.py"],
        args=["{output_path}", "to be or not to be"],
        output_path="word_count",
    )
    return invocation.get_results(implicit_materializations=False)


snowflake = SnowflakeResource(
    account=dg.EnvVar("SNOWFLAKE_ACCOUNT"),
    user=dg.EnvVar("SNOWFLAKE_USER"),
    password=dg.EnvVar("SNOWFLAKE_PASSWORD"),
    role="WORK_ROLE",
)
spcs = PipesSPCSClient(
    snowflake=snowflake,
    database="WORK_DB",
    job_schema="WORK",
    stage="FILES",
    compute_pool="WORK_POOL",
    image="/work_db/work/images/python:3.11",
)
defs = dg.Definitions(assets=[word_count], resources={"spcs": spcs})
