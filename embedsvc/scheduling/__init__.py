"""How texts become batches and how concurrent requests share one model."""
