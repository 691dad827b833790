"""What both servers need around their calls: who may make them, how they are told of, where they are listened for."""
