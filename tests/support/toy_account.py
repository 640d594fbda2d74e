"""What the toy pipeline needs in an account: the set-up, and one source table with one row."""

import snowflake.connector

from monad_dagster.cli.account import account_layout
from monad_dagster.spcs.account_setup import apply_setup
from monad_dagster.spcs.connection import Session


def prepare_toy_account(account, settings):
    """Apply the account set-up of *settings* and make HM_KAGGLE.PUBLIC.TRANSACTIONS."""
    with Session(lambda: snowflake.connector.connect(**account.connection("ADMIN"))) as session:
        apply_setup(session, account_layout(settings))
    with snowflake.connector.connect(**account.connection("ADMIN")) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "CREATE TABLE HM_KAGGLE.PUBLIC.TRANSACTIONS "
            "(T_DAT DATE, CUSTOMER_ID TEXT, ARTICLE_ID TEXT, PRICE FLOAT)"
        )
        cursor.execute(
            "INSERT INTO HM_KAGGLE.PUBLIC.TRANSACTIONS VALUES ('2020-01-01','a','1',0.5)"
        )
