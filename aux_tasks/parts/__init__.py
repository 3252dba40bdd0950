"""What auxiliary tasks are built from: perceptrons, decoders, models of dynamics, patches, clips, colours."""
