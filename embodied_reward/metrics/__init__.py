"""Metrics of reward models, each beside trivial baselines; figures and overlay videos."""
