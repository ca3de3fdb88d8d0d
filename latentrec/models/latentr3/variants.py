"""Names of the model's variants; apart from the model, so that a configuration needs no torch."""

LATENT_SOURCES = ("latent_ratt", "last_hidden", "pause_token")
ANSWER_READS = ("prompt", "latents")
