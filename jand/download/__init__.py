"""What is missing: which files to fetch from where, and fetching them so that nothing unverified ever has its final name."""
