"""Trained models as zip files: exported, checked, installed, downloaded."""
