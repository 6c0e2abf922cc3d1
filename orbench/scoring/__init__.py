"""From replies to verdicts: the platform's signal, phrases, the classifier, the judge; each may abstain."""
