"""What stays: objects on disk or S3, model files, tables, manifests; the only place that imports boto3."""
