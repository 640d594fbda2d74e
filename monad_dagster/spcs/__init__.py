"""What Snowflake understands: names, SQL, specifications, job services, stages, registry."""
