"""Objects in an S3 bucket: a Store over boto3."""

from __future__ import annotations

import re
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from pipeline.errors import NotFound, StorageError
from pipeline.store.objects import Store, check_name

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONFLICT_TRIES = 5
# Bounded: boto3's own 60 s of connecting times 5 tries would keep a stream waiting for five minutes.
_CONFIG = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 4})


class S3Store(Store):
    """Objects below s3://bucket/prefix. S3 has no rename: a PUT is complete or not at all by itself."""

    def __init__(self, bucket: str, prefix: str = "", client: Any = None) -> None:
        if not _BUCKET.fullmatch(bucket):
            # Not shown: "s3://key:secret@bucket" would put a secret into the log.
            raise StorageError("s3:// is not followed by a bucket's name", hint="write s3://bucket/prefix")
        prefix = prefix.strip("/")
        self._bucket = bucket
        self._lead = f"{check_name(prefix)}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        if client is None:
            try:
                client = boto3.Session().client("s3", config=_CONFIG)
            except (BotoCoreError, ValueError) as error:
                raise StorageError(f"S3 cannot be used ({error})", where=self.url) from error
        self._client = client

    def put_new(self, name: str, data: bytes) -> bool:
        """See Store."""
        for _ in range(_CONFLICT_TRIES):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                if _code(error) in ("ConditionalRequestConflict", "409"):
                    continue  # another writer is at it this moment: the next try sees whether it got there
                raise self._failure(error, name) from error
            except BotoCoreError as error:
                raise self._failure(error, name) from error
            return True
        raise StorageError("another process keeps writing this object", where=self._where(name))

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data)
        except (ClientError, BotoCoreError) as error:
            raise self._failure(error, name) from error

    def get(self, name: str) -> bytes:
        """See Store."""
        try:
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise self._failure(error, name) from error
        return data

    def exists(self, name: str) -> bool:
        """See Store."""
        try:
            self._client.head_object(Bucket=self._bucket, Key=self._key(name))
        except ClientError as error:
            if _code(error) in ("404", "NoSuchKey", "NotFound"):
                return False
            raise self._failure(error, name) from error
        except BotoCoreError as error:
            raise self._failure(error, name) from error
        return True

    def list(self, prefix: str = "") -> list[str]:
        """See Store."""
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._lead + prefix
            )
            keys = [str(entry["Key"]) for page in pages for entry in page.get("Contents", ())]
        except (ClientError, BotoCoreError) as error:
            raise self._failure(error, prefix) from error
        return sorted(key[len(self._lead) :] for key in keys if not key.endswith("/"))

    def delete(self, name: str) -> None:
        """See Store."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))
        except (ClientError, BotoCoreError) as error:
            raise self._failure(error, name) from error

    def part(self, prefix: str) -> S3Store:
        """See Store."""
        return S3Store(self._bucket, self._lead + check_name(prefix), self._client)

    def _key(self, name: str) -> str:
        return self._lead + check_name(name)

    def _where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._lead}{name}"

    def _failure(self, error: Exception, name: str) -> StorageError:
        where = self._where(name)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return StorageError(
                "there are no credentials for S3",
                where=where,
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            )
        if not isinstance(error, ClientError):
            return StorageError(f"S3 does not answer ({error})", where=where, hint="check AWS_ENDPOINT_URL")
        code = _code(error)
        if code == "NoSuchBucket":
            return StorageError(f"there is no bucket '{self._bucket}'", where=where, hint="create it first")
        if code in ("NoSuchKey", "404", "NotFound"):
            return NotFound("there is no such object", where=where)
        if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            return StorageError(
                f"S3 does not allow it ({code})", where=where, hint="check the credentials and the bucket's policy"
            )
        if code in ("NotImplemented", "501"):
            return StorageError(
                "this S3 server has no conditional PUT (If-None-Match)", where=where, hint="use one that has"
            )
        return StorageError(f"S3 refused it ({code})", where=where)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
