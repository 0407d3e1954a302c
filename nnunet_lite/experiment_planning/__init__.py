"""From raw images to a fingerprint, and from the fingerprint to plans."""
