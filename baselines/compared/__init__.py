"""Internal: what a comparison is, its rows, and the rules head to head; `protocols.py` lists all comparisons."""
