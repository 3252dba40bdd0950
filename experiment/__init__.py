"""How a config becomes a run. Losses are computed elsewhere. Each package uses only those below it:

    commands        how a command starts: check its words, run it, or run its sweep in other processes
    probing         probes of a trained encoder
    pretraining     training of an encoder by auxiliary tasks alone
    recordings      recorded episodes, and every other source that pretraining and probes read
    training        training of an agent
    goals           goal spaces: how an encoder defines goals, and the environment through them
    folders         files of a run: its folder, its weights, and folders that others made
    command_line    the words of a command line, composed to a typed config

`sb3` gives trained encoders to agents of Stable-Baselines3.
"""
