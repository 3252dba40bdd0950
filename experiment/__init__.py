"""How a config becomes a run. Losses are computed elsewhere. Each package uses only those below it:

launching       how a command starts: check its words, run it, or run its sweep in other processes
sb3             trained encoders for agents of Stable-Baselines3
probing         probes of a trained encoder
pretraining     training of an encoder by auxiliary tasks alone
sources         what pretraining and probes read: recordings of play, images, videos
training        training of an agent, and what pretraining shares with it
goals           goal spaces: how an encoder defines goals, and the environment as an agent sees it through them
folders         files of a run: its folder, its weights, shipped and foreign folders, the next commands
command_line    the words of a command line, composed to a typed config
"""
