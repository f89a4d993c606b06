/**
 * A loader that does what `Do` of each request tells it to, for the tests of batches and faults; `Ms` is how long its
 * batch takes. scripted.py is its twin.
 */
import { spawn } from "node:child_process";
import { appendFileSync, closeSync, existsSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  BadInputError,
  BaseModelLoader,
  RetryableError,
  type BatchTrace,
  type Outcome,
  type PredictionRequest,
} from "infermill";

export class ScriptedModelLoader extends BaseModelLoader {
  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<Outcome[]> {
    const journal = this.settings["journal"] as string | undefined;
    if (journal) appendFileSync(journal, `${requests.map(({ Fid }) => Fid).join(" ")}\n`);
    const told = new Set(requests.map(({ Do }) => Do));
    if (told.has("crash")) process.kill(process.pid, "SIGKILL");
    if (told.has("abort")) process.abort();
    if (told.has("exit")) process.exit(3);
    // Blocks the process for good, as a stuck native call does.
    if (told.has("hang")) for (;;);
    if (told.has("throw")) throw new Error("told to throw");
    if (told.has("close pipe")) {
      closeSync(3);
      await wait(60_000);
    }
    if (told.has("huge frame")) await writeToPipe(prefix(2 ** 31));
    if (told.has("stray line")) await writeToPipe(Buffer.from("a stray line\n"));
    if (told.has("bare NaN")) {
      const header = Buffer.from('{"type":"outcomes","outcomes":[{"key":NaN}]}');
      await writeToPipe(Buffer.concat([prefix(header.length), header]));
    }
    if (told.has("out of memory") && requests.length > 2)
      throw new RangeError(`Array buffer allocation failed: ${requests.length} don't fit`);
    if (told.has("print garbage")) {
      writeSync(1, Buffer.alloc(256 * 64, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))));
      console.log('{"type":"outcomes","outcomes":[]}\nIFM1');
      console.error("a last word");
    }
    if (told.has("fork children"))
      for (let child = 0; child < 3; child++) spawn("sleep", ["600"], { stdio: "inherit" });
    if (told.has("progress")) {
      for (let step = 0; step < 8; step++) {
        await wait(300);
        trace.progress?.();
      }
    }
    await wait(Math.max(...requests.map(({ Ms }) => Number(Ms ?? 0))));
    if (told.has("wrong count")) return [];
    return requests.map((request) => this.answer(request));
  }

  private answer(request: PredictionRequest): Outcome {
    if (request["Do"] === "refuse") return new BadInputError("told to refuse");
    if (request["Do"] === "no dictionary") return 42 as unknown as Outcome;
    if (request["Do"] === "no JSON") return { ...request, Fs: [{ Cs: 1n }] };
    if (request["Do"] === "NaN") return { ...request, Fs: [{ Cs: 1, Lb: "a" }, { Cs: Number.NaN }] };
    if (request["Do"] === "retry once") {
      const mark = join(this.settings["folder"] as string, `tried-${String(request.Fid)}`);
      if (!existsSync(mark)) {
        writeFileSync(mark, "");
        return new RetryableError("told to fail once");
      }
    }
    return {
      ...request,
      Fs: [{ Cs: 1, Lb: String(request.Fid), Dm: {} }],
      Mtp: [],
      Obase_64: [],
      Img_url: [],
      Rc: "200",
      Rm: "Success",
    };
  }
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function prefix(headerBytes: number): Buffer {
  const bytes = Buffer.from("IFM1\0\0\0\0\0\0\0\0", "latin1");
  bytes.writeUInt32LE(headerBytes, 4);
  return bytes;
}

async function writeToPipe(bytes: Buffer): Promise<void> {
  writeSync(3, bytes);
  await wait(60_000);
}
