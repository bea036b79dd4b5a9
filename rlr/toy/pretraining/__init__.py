"""The training of the built-in world's own models: autoencoder, denoiser and learned reward."""
