/** The settings of what browsers meet: the console, its thumbnails, who may call from where. */
import { z } from "zod";
import { isAllowEntry, isAddressOrBlock } from "../egress/addressFilter.ts";

export const consoleSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .meta({ description: "Whether browsers get the console at /; else the list of links." }),
    read_only: z.boolean().default(false).meta({
      description:
        "Whether the pages of the api (console, /docs) may only look: what a browser sends that changes something is refused. Clients that bring a key in their header, or are no browsers, are not concerned.",
    }),
    thumbnails: z
      .union([
        z.boolean(),
        z.strictObject({
          size: z
            .int()
            .min(32)
            .max(256)
            .meta({ description: "Longest side of a thumbnail in pixels, from 32 to 256." }),
        }),
      ])
      .optional()
      .meta({
        description:
          'Whether a small picture of each prediction\'s input is kept as long as the prediction: true (256 pixels), false, or `{"size": 128}`. A worker spends at most a hundredth of its time on them (one or two in a second), and goes without where more end. Default: true where `inputs` is files, else false.',
      }),
    keep_inputs: z.int().min(0).max(10_000).default(0).meta({
      description:
        "Inputs of how many ended predictions each worker keeps, so that they can be run again; at most for input_ttl_seconds. Default: 0, an input goes when its prediction ends, and only what came as a reference, by URL or as text can be run again.",
    }),
  })
  .prefault({})
  .meta({ description: "The page at /." });

const USUAL_SIZE = 256;

/** Longest side of a thumbnail in pixels; undefined where there are to be none. */
export function thumbnailSize({
  console: { thumbnails },
  inputs,
}: {
  console: z.output<typeof consoleSchema>;
  inputs: "files" | "redis" | "s3";
}): number | undefined {
  if (typeof thumbnails === "object") return thumbnails.size;
  return (thumbnails ?? inputs === "files") ? USUAL_SIZE : undefined;
}

const origin = z.string().refine(isOrigin, {
  error: "must be an origin such as https://app.example.org: scheme, host and port, nothing behind",
});

function isOrigin(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) && new URL(text).origin === text;
}

export const corsOriginsSchema = z.array(origin).default([]).meta({
  description:
    "Origins of other sites whose pages may call the api from a browser (CORS), such as https://app.example.org; they send a key as a bearer token. Default: none.",
});

export const allowedHostsSchema = z
  .array(
    z.string().refine((entry) => isAllowEntry(entry.replace(/^\*\./, "")), {
      error: "must be a host name without a port, such as infermill.example.org or *.example.org",
    }),
  )
  .default([])
  .meta({
    description:
      "Further names under which the api may be called where there are no api_keys; *.example.org stands for every name below it. Addresses, names without a dot, localhost, *.local, *.internal and the name in public_url always may. Default: none.",
  });

export const trustedProxiesSchema = z
  .array(
    z.string().refine(isAddressOrBlock, {
      error: "must be an IP address or a CIDR block such as 10.0.0.0/8",
    }),
  )
  .default(["127.0.0.0/8", "::1"])
  .meta({
    description:
      "Proxies whose X-Forwarded-Prefix, X-Forwarded-Proto and X-Forwarded-Host are believed: addresses and CIDR blocks. Default: this machine.",
  });
