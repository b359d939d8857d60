"""The playground's HTTP face: discovery, routing, content types, watches, authentication and authorization."""
