"""Comparing predicted with reference segmentations."""
