/** Places of object storage in the configuration: `s3://bucket/prefix`, or an object that also says how to reach it. */
import { z } from "zod";
import { urlSchemeOf } from "../core/urlScheme.ts";

/** A bucket, or the part of one below a prefix. What is left out, the library takes from its standard chain. */
export interface StoragePlace {
  /** `s3://bucket` or `s3://bucket/prefix`. */
  url: string;
  region?: string | undefined;
  endpoint?: string | undefined;
  path_style?: boolean | undefined;
}

const STORAGE_URL = /^s3:\/\/[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](\/|$)/;

const reach = {
  region: z.string().min(1).optional().meta({
    description: "Region of the buckets. Default: what AWS's own tools take, such as AWS_REGION.",
  }),
  endpoint: z
    .string()
    .regex(/^https?:\/\/[^/?#@]+\/?$/, { error: "must be an http:// or https:// URL without a path" })
    .optional()
    .meta({
      description:
        "Server that isn't Amazon's: MinIO, Ceph, R2, or https://storage.googleapis.com. Default: AWS_ENDPOINT_URL_S3, else Amazon's.",
    }),
  path_style: z.boolean().optional().meta({
    description:
      "Whether the bucket stands in the path of a URL, not in its host name. Default: where an endpoint is set.",
  }),
};

const storageUrl = z.string().refine(isStorageUrl, {
  error: 'must be "s3://<bucket>" or "s3://<bucket>/<prefix>", without .. and //',
});

export const s3Schema = z.strictObject(reach).default({}).meta({
  description:
    "How the buckets of s3:// URLs are reached, where a place of its own does not say otherwise. Credentials come from the standard chain: environment, shared files, role of the machine.",
});

export const storagePlaceSchema = z.union([storageUrl, z.strictObject({ url: storageUrl, ...reach })]);

/** A folder, or a place of object storage. */
export const folderOrPlaceSchema = z.union([
  z
    .string()
    .min(1)
    .refine((text) => isStorageUrl(text) || urlSchemeOf(text) === undefined, {
      error:
        "must be a folder or s3://<bucket>/<prefix> (Google's buckets, too, are reached by s3://, with the endpoint https://storage.googleapis.com)",
    }),
  z.strictObject({ url: storageUrl, ...reach }),
]);

/** Whether a text is the URL of a place in object storage, or of an object. */
export function isStorageUrl(text: string): boolean {
  return STORAGE_URL.test(text) && isSafeKey(text.replace(/^s3:\/\/[^/]*\/?/, "").replace(/\/$/, ""), true);
}

/** Whether a key stays below its prefix however a server reads it: no empty part, none that leads upwards. */
export function isSafeKey(key: string, mayBeEmpty = false): boolean {
  if (key === "") return mayBeEmpty;
  if (/[\0\p{Surrogate}]/u.test(key) || key.split("/").includes("")) return false;
  return !/(^|[/\\])\.{1,2}([/\\]|$)/.test(key);
}

/** The settings of a place, with those that hold for all where it has none of its own. */
export function toStoragePlace(
  given: string | StoragePlace,
  shared: Omit<StoragePlace, "url">,
): StoragePlace {
  const own = typeof given === "string" ? { url: given } : given;
  return { ...shared, ...own, url: own.url.replace(/\/$/, "") };
}

/** `s3://bucket/a/b` as its bucket and `a/b`. */
export function splitStorageUrl(url: string): { bucket: string; key: string } {
  const [, bucket = "", key = ""] = /^s3:\/\/([^/]*)\/?(.*)$/s.exec(url) ?? [];
  return { bucket, key };
}
