-- The set-up script of the documented page, statement by statement; {prefix} replaces `monad`, and
-- the instance family is a small one.
CREATE ROLE IF NOT EXISTS {prefix}_role;
GRANT ROLE {prefix}_role TO USER {user};
CREATE DATABASE IF NOT EXISTS {prefix}_db;
CREATE SCHEMA IF NOT EXISTS {prefix}_db.data_schema;
CREATE STAGE IF NOT EXISTS {prefix}_db.data_schema.monad_stage;
CREATE IMAGE REPOSITORY IF NOT EXISTS {prefix}_db.data_schema.image_repository;
CREATE COMPUTE POOL IF NOT EXISTS {prefix}_compute_pool
  MIN_NODES = 1
  MAX_NODES = 1
  INSTANCE_FAMILY = CPU_X64_XS
  INITIALLY_SUSPENDED = TRUE
  AUTO_SUSPEND_SECS = 300
  AUTO_RESUME = TRUE;
GRANT USAGE ON DATABASE {prefix}_db TO ROLE {prefix}_role;
GRANT USAGE ON SCHEMA {prefix}_db.data_schema TO ROLE {prefix}_role;
GRANT USAGE, READ, WRITE ON STAGE {prefix}_db.data_schema.monad_stage TO ROLE {prefix}_role;
GRANT USAGE ON COMPUTE POOL {prefix}_compute_pool TO ROLE {prefix}_role;
