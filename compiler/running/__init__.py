"""How a graph or a payload is run while compiling; services run artifacts by `leptonc.runtime`."""
