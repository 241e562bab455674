"""How work is shown while it is done: steps, plain lines, what libraries print; not what a command reports."""
