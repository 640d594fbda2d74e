-- The same objects, with everything that the documented script leaves out.
CREATE ROLE IF NOT EXISTS {prefix}_role;
GRANT ROLE {prefix}_role TO USER {user};
CREATE DATABASE IF NOT EXISTS {prefix}_db;
CREATE SCHEMA IF NOT EXISTS {prefix}_db.data_schema;
CREATE STAGE IF NOT EXISTS {prefix}_db.data_schema.monad_stage
  ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE') DIRECTORY = (ENABLE = TRUE);
CREATE IMAGE REPOSITORY IF NOT EXISTS {prefix}_db.data_schema.image_repository;
CREATE WAREHOUSE IF NOT EXISTS {prefix}_warehouse
  WAREHOUSE_SIZE = XSMALL AUTO_SUSPEND = 60 AUTO_RESUME = TRUE INITIALLY_SUSPENDED = TRUE;
CREATE COMPUTE POOL IF NOT EXISTS {prefix}_compute_pool
  MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS
  INITIALLY_SUSPENDED = TRUE AUTO_SUSPEND_SECS = 300 AUTO_RESUME = TRUE;
GRANT USAGE ON DATABASE {prefix}_db TO ROLE {prefix}_role;
GRANT USAGE ON SCHEMA {prefix}_db.data_schema TO ROLE {prefix}_role;
GRANT CREATE SERVICE ON SCHEMA {prefix}_db.data_schema TO ROLE {prefix}_role;
GRANT READ ON STAGE {prefix}_db.data_schema.monad_stage TO ROLE {prefix}_role;
GRANT WRITE ON STAGE {prefix}_db.data_schema.monad_stage TO ROLE {prefix}_role;
GRANT READ ON IMAGE REPOSITORY {prefix}_db.data_schema.image_repository TO ROLE {prefix}_role;
GRANT USAGE, MONITOR, OPERATE ON COMPUTE POOL {prefix}_compute_pool TO ROLE {prefix}_role;
GRANT USAGE ON WAREHOUSE {prefix}_warehouse TO ROLE {prefix}_role;
GRANT USAGE ON DATABASE {prefix}_hm_kaggle TO ROLE {prefix}_role;
GRANT USAGE ON SCHEMA {prefix}_hm_kaggle.public TO ROLE {prefix}_role;
GRANT SELECT ON ALL TABLES IN SCHEMA {prefix}_hm_kaggle.public TO ROLE {prefix}_role;
GRANT SELECT ON FUTURE TABLES IN SCHEMA {prefix}_hm_kaggle.public TO ROLE {prefix}_role;
ALTER SCHEMA {prefix}_db.data_schema SET LOG_LEVEL = INFO;
ALTER SCHEMA {prefix}_db.data_schema SET LOG_EVENT_LEVEL = INFO;
