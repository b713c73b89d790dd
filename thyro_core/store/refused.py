"""Tell an object that a store lists and does not return from a store that refuses everything."""

import fsspec

from thyro_core.store.listing import explain_refusal


def object_refusal(fs: fsspec.AbstractFileSystem, path: str, error: Exception) -> str | None:
    """What S3 answers for an object that it lists and does not return; None: it lists it no more.

    Args:
        fs: the object's file system, on S3.
        path: of the object.
        error: what reading it raised.

    Raises:
        InputError: the store does not list it either: it refuses us, and not the object.
        StoreError: it does not answer.
    """
    bucket, key, _ = fs.split_path(path)
    with explain_refusal(f"s3://{bucket}", fs):
        # The key itself comes before all that it is the beginning of.
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
    if all(entry["Key"] != key for entry in page.get("Contents", ())):
        return None
    response = getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return f"HTTP status {status}" if isinstance(status, int) else "no whole answer"
