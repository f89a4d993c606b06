/** `infermill webhooks list | replay | secret`: look after the deliveries from the machine that runs them. */
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import type { Deliveries, Delivery, FoundDeliveries } from "../queue/deliveries.ts";
import { openPredictions } from "../queue/predictions.ts";
import { provideRedis } from "../redis/provideRedis.ts";
import { provideSecrets } from "../webhooks/secret.ts";
import { EXIT_FAILED } from "./exit.ts";

const PAGE = 1000;

export interface ListOptions {
  config?: string;
  failed?: boolean;
  run?: string;
  prediction?: string;
  json?: boolean;
}

export async function listWebhooks(options: ListOptions): Promise<void> {
  const { run, prediction } = options;
  await withDeliveries(options.config, async (deliveries) => {
    const { deliveries: listed } = await deliveries.search({
      status: "failed",
      run,
      prediction,
      limit: PAGE,
    });
    if (!options.failed) {
      for (const status of ["pending", "delivered"] as const)
        listed.push(...(await deliveries.search({ status, run, prediction })).deliveries);
    }
    if (options.json) {
      console.log(JSON.stringify(listed, null, 2));
      return;
    }
    const { pending, delivered, failed } = await deliveries.count();
    for (const delivery of listed) console.log(describe(delivery));
    for (const { url, until } of await deliveries.listGone())
      console.log(`gone     ${url} answered 410 and is left alone until ${until}`);
    console.log(`${failed} failed, ${pending} pending, ${delivered} delivered`);
  });
}

export async function replayWebhooks(
  ids: readonly string[],
  options: { config?: string; allFailed?: boolean },
): Promise<void> {
  await withDeliveries(options.config, async (deliveries) => {
    const wanted = options.allFailed ? await idsOfFailed(deliveries) : ids;
    let failures = 0;
    for (const id of wanted) {
      try {
        const { url } = await deliveries.replay(id);
        console.log(`${id} goes to ${url} again`);
      } catch (error) {
        failures++;
        console.error(`infermill: ${(error as Error).message}`);
      }
    }
    console.log(`${wanted.length - failures} sent again`);
    if (failures > 0) process.exitCode = EXIT_FAILED;
  });
}

export async function showWebhookSecret(options: { config?: string }): Promise<void> {
  const { secrets, file } = await provideSecrets(await loadConfig({ file: options.config }));
  for (const secret of secrets) console.log(secret);
  console.error(file ? `kept in ${file}` : "from the configuration or INFERMILL_WEBHOOK_SECRET");
}

/** All of them before the first is replayed, which takes it out of the list. */
async function idsOfFailed(deliveries: Deliveries): Promise<string[]> {
  const ids: string[] = [];
  for (let offset: number | null = 0; offset !== null;) {
    const page: FoundDeliveries = await deliveries.search({ status: "failed", offset, limit: PAGE });
    ids.push(...page.deliveries.map(({ id }) => id));
    offset = page.next;
  }
  return ids;
}

function describe({ id, status, event, url, attempts, error, prediction, run }: Delivery): string {
  const what = prediction ? `${prediction.model}/${prediction.id}` : [event, run].filter(Boolean).join(" ");
  const tries = `${attempts.length} ${attempts.length === 1 ? "attempt" : "attempts"}`;
  return [status.padEnd(9), id, what, "→", url, `(${tries}${error ? `: ${error}` : ""})`].join(" ");
}

async function withDeliveries(
  file: string | undefined,
  use: (deliveries: Deliveries) => Promise<void>,
): Promise<void> {
  const config: Config = await loadConfig({ file });
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    redisTls: config.redis_tls,
    dataDir: config.data_dir,
    onProgress: (line) => console.error(line),
  });
  try {
    const predictions = await openPredictions(config, redis.url);
    try {
      await use(predictions.deliveries);
    } finally {
      await predictions.close();
    }
  } finally {
    await redis.close();
  }
}
