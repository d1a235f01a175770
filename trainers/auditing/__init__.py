"""Internal: the audit of a run or a model, from its folder to a report."""
