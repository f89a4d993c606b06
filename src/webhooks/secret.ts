/** The secrets that deliveries are signed with: the configuration's, or one that is made once and kept. */
import { randomBytes, randomUUID } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";

const SECRET_BYTES = 32;

export interface WebhookSecrets {
  /** One, or two while receivers change from one to the other. */
  secrets: string[];
  /** The file that the secret is kept in; undefined where it came from the configuration. */
  file?: string;
}

export async function provideSecrets({
  webhooks: { secret },
  data_dir: dataDir,
}: Pick<Config, "webhooks" | "data_dir">): Promise<WebhookSecrets> {
  if (secret !== undefined) return { secrets: [secret].flat() };
  const file = join(dataDir, "webhook-secret");
  return { secrets: [(await readSecret(file)) ?? (await makeSecret(dataDir, file))], file };
}

async function readSecret(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function makeSecret(folder: string, file: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const draft = `${file}-${randomUUID()}`;
  await writeFile(draft, `whsec_${randomBytes(SECRET_BYTES).toString("base64")}\n`, { mode: 0o600 });
  try {
    // Of several processes that start at once, one makes the secret, and none sees half of it.
    await link(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    await rm(draft, { force: true });
  }
  return (await readSecret(file))!;
}
