"""One thin file per command: options, a spec, one verb, a report."""
