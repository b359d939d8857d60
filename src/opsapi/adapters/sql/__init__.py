"""State on SQLite (embedded) or PostgreSQL: one set of tables, one dialect of queries, the same tests on both."""
