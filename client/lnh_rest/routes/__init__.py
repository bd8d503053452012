"""The table of routes, in parts; `table.py` puts them together."""
