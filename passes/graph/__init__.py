"""How a graph is read and edited safely; nothing here knows why."""
