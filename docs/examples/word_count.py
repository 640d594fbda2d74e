"""A project of its own that runs one asset as a job service; nothing of the pipeline is used."""

import dagster as dg

from monad_dagster.pipes import NamedConnection, PipesSPCSClient


@dg.asset
def word_count(context: dg.AssetExecutionContext, spcs: PipesSPCSClient):
    scripts = spcs.upload_scripts(dg.file_relative_path(__file__, "scripts"), to="word_count/code")
    return spcs.run(
        context=context,
        command=["python", f"{scripts}/count.py", "{output_path}", "to be or not to be"],
        output_path="word_count",
    ).get_results()


spcs = PipesSPCSClient(
    snowflake=NamedConnection(connection_name="work"),
    stage="WORK_DB.WORK.FILES",
    compute_pool="WORK_POOL",
    image="/work_db/work/images/python:3.11",
)
defs = dg.Definitions(assets=[word_count], resources={"spcs": spcs})
