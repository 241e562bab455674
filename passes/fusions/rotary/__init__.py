"""Rotary position embedding, from its turns, tables and parts."""
