"""Requests that leave: which addresses they may reach."""
