/** Amazon's S3, and what speaks like it: MinIO, Ceph, R2, Google's interoperable endpoint. */
import type { Readable } from "node:stream";
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  S3Client,
  type S3ClientConfig,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { splitStorageUrl, type StoragePlace } from "../config/storagePlace.ts";
import { StorageUnavailableError } from "../errors.ts";
import {
  MissingBucketError,
  MissingObjectError,
  RefusedObjectError,
  type ObjectStore,
  type StoredObject,
} from "./objectStore.ts";

/** Of one call, with waits that double from 0.1 s. */
const ATTEMPTS = 5;
const MAX_SOCKETS = 128;
const CONNECT_MS = 5000;
/** Until an answer begins, and between two pieces of it. */
const SILENCE_MS = 30_000;
/** Parts that go up side by side, of 5 MiB each: what an upload holds in memory. */
const PARALLEL_PARTS = 4;
/** Refusals that pass: they say nothing about the call. */
const PASSING = new Set([408, 425, 429]);
/** Refusals that another key, a right clock or a fresh token ends: no fault of the object that was asked for. */
const CREDENTIALS =
  /^(ExpiredToken\w*|InvalidAccessKeyId|SignatureDoesNotMatch|RequestTimeTooSkewed|RequestExpired|TokenRefreshRequired|InvalidToken|CredentialsProviderError)$/;

export function openS3(place: StoragePlace): ObjectStore {
  // What it says of older versions of Node is for who updates the package.
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true";
  const { bucket: Bucket } = splitStorageUrl(place.url);
  const client = new S3Client(clientConfig(place));
  const nameOf = (key: string) => `s3://${Bucket}/${key}`;

  return {
    async list(prefix, after, limit) {
      const command = new ListObjectsV2Command({
        Bucket,
        Prefix: prefix,
        StartAfter: after,
        MaxKeys: limit,
      });
      const { Contents = [] } = await client.send(command).catch(explain(nameOf(prefix)));
      return Contents.map(({ Key = "", Size = 0, LastModified }): StoredObject => ({
        key: Key,
        bytes: Size,
        modified: LastModified?.getTime() ?? 0,
      }));
    },

    async open(key, first) {
      const Range = first === undefined ? undefined : `bytes=0-${first - 1}`;
      const answer = await client
        .send(new GetObjectCommand({ Bucket, Key: key, Range }))
        .catch(explain(nameOf(key)));
      const whole = /\/(\d+)$/.exec(answer.ContentRange ?? "")?.[1];
      return { bytes: Number(whole ?? answer.ContentLength ?? 0), body: answer.Body as Readable };
    },

    async find(key) {
      const name = nameOf(key);
      const found = await client
        .send(new HeadObjectCommand({ Bucket, Key: key }))
        .catch(explain(name))
        .catch((error: unknown) => {
          if (error instanceof MissingObjectError) return undefined;
          throw error;
        });
      const { ContentLength = 0, LastModified } = found ?? {};
      return found && { key, bytes: ContentLength, modified: LastModified?.getTime() ?? 0 };
    },

    async put(key, source, mediaType) {
      const params = { Bucket, Key: key, Body: source, ContentType: mediaType };
      await new Upload({ client, params, queueSize: PARALLEL_PARTS }).done().catch(explain(nameOf(key)));
    },

    async remove(key) {
      await client.send(new DeleteObjectCommand({ Bucket, Key: key })).catch(explain(nameOf(key)));
    },
  };
}

function clientConfig(place: StoragePlace): S3ClientConfig {
  const { AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION } = process.env;
  const endpoint = place.endpoint ?? (AWS_ENDPOINT_URL_S3 || AWS_ENDPOINT_URL || undefined);
  // Others than Amazon have one region, whatever it is called.
  const region = place.region ?? (AWS_REGION || AWS_DEFAULT_REGION || (endpoint && "us-east-1"));
  return {
    ...(endpoint !== undefined && {
      endpoint,
      // Others than Amazon know no checksums beside the body.
      requestChecksumCalculation: "WHEN_REQUIRED" as const,
      responseChecksumValidation: "WHEN_REQUIRED" as const,
    }),
    ...(region && { region }),
    forcePathStyle: place.path_style ?? endpoint !== undefined,
    followRegionRedirects: true,
    maxAttempts: ATTEMPTS,
    requestHandler: {
      connectionTimeout: CONNECT_MS,
      requestTimeout: SILENCE_MS,
      throwOnRequestTimeout: true,
      socketTimeout: SILENCE_MS,
      httpAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
      httpsAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
    },
  };
}

/** What the library throws, as what the house decides by. */
function explain(name: string): (thrown: unknown) => never {
  return (thrown) => {
    const error = thrown as Error & { code?: string; $metadata?: { httpStatusCode?: number } };
    const status = error.$metadata?.httpStatusCode ?? 0;
    const why = [error.name, error.message].filter((text) => text && text !== "UnknownError").join(": ");
    const options = { cause: thrown };
    if (CREDENTIALS.test(error.name))
      throw new StorageUnavailableError(`${name} can't be reached: ${why}`, options);
    if (error.name === "NoSuchBucket")
      throw new MissingBucketError(`${name}: there is no such bucket`, options);
    if (status === 404) throw new MissingObjectError(`there is no object ${name}`, options);
    if (status >= 300 && status < 500 && !PASSING.has(status))
      throw new RefusedObjectError(`${name} is refused: ${why}`, options);
    // Without an answer: the code of the system, and not the address, which is none of a client's business.
    throw new StorageUnavailableError(
      `${name} can't be reached: ${status > 0 ? why : (error.code ?? why)}`,
      options,
    );
  };
}
