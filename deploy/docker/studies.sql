-- Of tuning: Dagster and Optuna both keep the version of their tables in alembic_version, so neither can share.
create database studies;
