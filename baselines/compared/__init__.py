"""Internal: what a comparison is, its rows, the rules head to head and default jobs; `protocols.py` lists them all."""
