"""The neutral core: names, selectors, plans, fingerprints and reports; it knows no framework."""
