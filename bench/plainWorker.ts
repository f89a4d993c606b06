/** The yardstick of the no-op row: a BullMQ worker with a processor that does nothing. Arguments: Redis URL, queue, prefix, concurrency. */
import { Worker } from "bullmq";
import { connectRedis } from "../src/redis/connections.ts";

const [url = "", queue = "", prefix = "", concurrency = ""] = process.argv.slice(2);
const connection = await connectRedis({ url, tls: undefined }, "worker");
const worker = new Worker(queue, async () => ({ response: { Fs: [] } }), {
  connection,
  prefix,
  concurrency: Number(concurrency),
  removeOnComplete: { count: 1_000_000 },
});
await worker.waitUntilReady();
process.send!("ready");
process.on("disconnect", () => process.exit(0));
