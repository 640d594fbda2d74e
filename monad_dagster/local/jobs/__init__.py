"""Job services: from EXECUTE JOB SERVICE to containers, logs, events and history."""
