"""Other tools' logs and tasks: what they hold, in orbench's own records."""
