"""Scoring of frames: one batch for every environment and view."""
