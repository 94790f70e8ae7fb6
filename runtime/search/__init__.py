"""Local search: texts of files in one SQLite file, found by meaning."""
