"""inspect_ai: orbench's splits, scorer and rates as its tasks, and its logs as runs."""
