"""SLOGAN: a GAN that also learns its prior, a Gaussian mixture whose weights tell the imbalance of the data.

Hwang, Kim, Jung, Jang, Lee, Yoon: Stein Latent Optimization for GANs, ICLR 2022. Written from the paper, without the
authors' code. `stein` has the gradients of the prior, `losses` the losses, `networks` critic and
encoder (the generator is `models.generators.slogan`), `data` the training data, `trainer` the loop, `run` its folder on
disk, `progress` metrics and pictures, `train` the verb.
"""
