"""What a trained network says of images as people have them: `python -m drn_jax.predict`."""
