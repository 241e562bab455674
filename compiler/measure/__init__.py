"""How long things take and how much memory they need; not whether they are right."""
