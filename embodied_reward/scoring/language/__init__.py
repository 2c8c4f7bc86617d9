"""Scorers that ask a language model which sees: yes or no, likelihood, or an answer in words."""
