"""The steps that make the tables and change them, run by Alembic; `versions/` holds one file a step."""
