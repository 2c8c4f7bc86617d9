"""Heads: small fp32 modules from features to scores."""
