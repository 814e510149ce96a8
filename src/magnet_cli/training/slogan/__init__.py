"""SLOGAN: a GAN whose prior is a Gaussian mixture that is learned too, so that it knows the imbalance of its data.

Hwang, Kim, Jung, Jang, Lee, Yoon: Stein Latent Optimization for GANs, ICLR 2022. Each file owns a part: `estimator` the
gradients of the prior and its steps, `losses` what the networks are trained by, `networks` critic and encoder (the
generator is the family `generators.slogan`), `data` what they are trained on, `training` the loop, `checkpoints` its
state on disk, `progress` what is said of it as it goes. Written from the paper; no line is the authors'.
"""
