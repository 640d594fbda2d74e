"""SELECT, DML and table DDL: fakesnow over DuckDB, with the account's privileges and names around it."""
