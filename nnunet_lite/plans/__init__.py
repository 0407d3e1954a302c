"""The documents every stage reads: dataset.json, fingerprint, plans, labels."""
