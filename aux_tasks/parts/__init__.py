"""What several auxiliary tasks use: small networks, patches, colours, clips, and forms of distances."""
