"""Which layers are computed on packed channels, and which on planes of pixels.

    work     how often a layer does what takes time
    costs    time, flash and RAM of layers, by the constants of `bnncc.targets.costs`
"""
