"""lm-evaluation-harness: orbench's splits as its tasks, and its logged samples as runs."""
