"""Bytes in a folder, or in a bucket of S3, Google Cloud Storage or Azure, by `obstore`."""
