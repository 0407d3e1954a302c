"""Image formats: one reader/writer per module, chosen by the registry; CaseProperties is what a case remembers."""
