"""Generation of splits: seeds -> rewrites -> moderation -> selection."""
