"""How steps are chained and placed: one file a DAG, plus placement, compile, submit, schedule, local run."""
