"""Snowflake's client protocol over HTTP: login, tokens, queries, results."""
