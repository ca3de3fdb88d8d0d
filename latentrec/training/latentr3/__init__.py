"""LatentR³: supervised fine-tuning (stage 1) and stage 2, over titles or on the latent token."""
