"""The registered tables: schemas, reading and writing, SQL, export."""
