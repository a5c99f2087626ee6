"""Reports and costs as values and as text: rows, tables and units."""
