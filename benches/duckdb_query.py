"""The same table by DuckDB's exact query: duckdb_query.py OUT THREADS FILE..."""

import sys

import duckdb

out, threads, *files = sys.argv[1:]
columns = "{event_id: 'VARCHAR', video_id: 'VARCHAR', event_type: 'VARCHAR', \"timestamp\": 'BIGINT'}"
names = ", ".join(f"'{file}'" for file in files)
connection = duckdb.connect(config={"threads": int(threads), "preserve_insertion_order": False})
connection.execute(f"""
    COPY (SELECT video_id, event_type, "timestamp" // 60000 * 60000 AS window_start, count(DISTINCT event_id) AS count
          FROM read_json([{names}], format = 'newline_delimited', columns = {columns}) GROUP BY ALL)
    TO '{out}' (FORMAT csv, DELIMITER '\t', HEADER false)""")
