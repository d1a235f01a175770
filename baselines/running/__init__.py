"""Internal: the runs of protocols and studies as processes, some at a time."""
