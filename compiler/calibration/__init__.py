"""Which values the model sees on the user's data; what is made of their ranges is `passes.ranges`."""
