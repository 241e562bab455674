"""What is in an artifact, and how it is shown; nothing here changes one."""
