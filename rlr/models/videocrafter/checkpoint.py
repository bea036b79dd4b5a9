"""A VideoCrafter's file in its authors' layout: buffers of the schedule, denoiser, autoencoder, text tower."""
