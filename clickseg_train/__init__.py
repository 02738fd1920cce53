"""The trainer: datasets and phantoms to checkpoints, with torch and MONAI."""
