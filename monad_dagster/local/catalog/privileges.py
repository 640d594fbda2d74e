"""Which privileges each kind of object has, as the GRANT page lists them.

Source: https://docs.snowflake.com/en/sql-reference/sql/grant-privilege. Kinds and privileges that
the account does not emulate are left out.
"""

_SCHEMA_CREATES = (
    "TABLE", "VIEW", "STAGE", "FILE FORMAT", "SEQUENCE", "FUNCTION", "PROCEDURE", "SERVICE",
    "IMAGE REPOSITORY", "SECRET", "TASK", "STREAM", "PIPE", "NETWORK RULE", "TEMPORARY TABLE",
    "MODEL", "NOTEBOOK", "STREAMLIT", "DYNAMIC TABLE", "EXTERNAL TABLE", "MATERIALIZED VIEW",
)  # fmt: skip

# What a role gets of a database that is shared with the account, such as SNOWFLAKE: USAGE.
IMPORTED = "IMPORTED PRIVILEGES"

PRIVILEGES: dict[str, frozenset[str]] = {
    "ACCOUNT": frozenset(
        {"CREATE DATABASE", "CREATE WAREHOUSE", "CREATE ROLE", "CREATE USER", "CREATE COMPUTE POOL",
         "CREATE INTEGRATION", "CREATE NETWORK POLICY", "BIND SERVICE ENDPOINT", "MANAGE GRANTS",
         "EXECUTE TASK", "EXECUTE MANAGED TASK", "MONITOR USAGE", "MONITOR EXECUTION", "MONITOR",
         "MODIFY LOG LEVEL", "MODIFY LOG EVENT LEVEL", "MODIFY METRIC LEVEL", "MODIFY TRACE LEVEL",
         "IMPORT SHARE"}
    ),
    "DATABASE": frozenset({"USAGE", "MODIFY", "MONITOR", "CREATE SCHEMA", "OWNERSHIP",
                           "CREATE DATABASE ROLE", "APPLYBUDGET", IMPORTED}),
    "SCHEMA": frozenset({"USAGE", "MODIFY", "MONITOR", "OWNERSHIP", "ADD SEARCH OPTIMIZATION"})
    | frozenset(f"CREATE {kind}" for kind in _SCHEMA_CREATES),
    "TABLE": frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES",
                        "OWNERSHIP", "EVOLVE SCHEMA", "APPLYBUDGET"}),
    "VIEW": frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "OWNERSHIP"}),
    "STAGE": frozenset({"READ", "WRITE", "OWNERSHIP"}),
    "IMAGE REPOSITORY": frozenset({"READ", "WRITE", "OWNERSHIP", "SERVICE READ", "SERVICE WRITE"}),
    "COMPUTE POOL": frozenset({"USAGE", "MONITOR", "OPERATE", "MODIFY", "OWNERSHIP", "APPLYBUDGET"}),
    "WAREHOUSE": frozenset({"USAGE", "OPERATE", "MODIFY", "MONITOR", "OWNERSHIP", "APPLYBUDGET"}),
    "SERVICE": frozenset({"USAGE", "MONITOR", "OPERATE", "OWNERSHIP"}),
    "SECRET": frozenset({"READ", "USAGE", "OWNERSHIP"}),
    "INTEGRATION": frozenset({"USAGE", "USE_ANY_ROLE", "OWNERSHIP"}),
    "FILE FORMAT": frozenset({"USAGE", "OWNERSHIP"}),
    "SEQUENCE": frozenset({"USAGE", "OWNERSHIP"}),
    "ROLE": frozenset({"OWNERSHIP"}),
    "USER": frozenset({"OWNERSHIP", "MONITOR", "IMPERSONATE"}),
}  # fmt: skip

PLURALS = {
    "DATABASES": "DATABASE", "SCHEMAS": "SCHEMA", "TABLES": "TABLE", "VIEWS": "VIEW",
    "STAGES": "STAGE", "SERVICES": "SERVICE", "SECRETS": "SECRET", "SEQUENCES": "SEQUENCE",
    "FILE FORMATS": "FILE FORMAT", "IMAGE REPOSITORIES": "IMAGE REPOSITORY",
    "COMPUTE POOLS": "COMPUTE POOL",
}  # fmt: skip

# No future grants exist on these kinds.
NO_FUTURE = frozenset({"IMAGE REPOSITORY", "COMPUTE POOL"})

# Longest first, so that "IMAGE REPOSITORY" is not read as "IMAGE".
KINDS = tuple(sorted(PRIVILEGES, key=lambda kind: -len(kind)))
