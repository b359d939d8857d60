"""What stands between a request and the storage: defaulting, validation, admission, ownership of fields, deletion."""
