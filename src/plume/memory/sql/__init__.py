"""The store on SQLite, PostgreSQL, MySQL and MariaDB, by SQLAlchemy."""
