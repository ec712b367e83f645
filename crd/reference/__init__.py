"""The reference pages of docs/: made from what the product itself goes by, so that they cannot say anything else."""
