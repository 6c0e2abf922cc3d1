"""Everything between a list of requests and saved replies: concurrency, retries, run folders, threads."""
