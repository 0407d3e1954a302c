"""From images to segmentations: tiles, mirroring, logits back to image space, files."""
