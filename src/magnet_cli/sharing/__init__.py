"""Exchange volumes with others: published arrays, fetch, publish."""
