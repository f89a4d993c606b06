/** Shows how far a download is: a bar on a terminal, a line now and then elsewhere. */
import { formatBytes } from "../core/byteSize.ts";

const LINE_EVERY_MS = 10_000;

export interface DownloadProgress {
  advance(bytes: number): void;
  /** Removes the bar. */
  end(): void;
}

/**
 * Begins to show a download.
 * @param receivedBytes what an earlier connection brought
 * @param totalBytes unknown where the host doesn't say it
 * @param tell takes the lines
 * @param terminal where the bar is drawn, if it is one
 */
export async function showDownload(
  receivedBytes: number,
  totalBytes: number | undefined,
  tell: (line: string) => void,
  terminal: NodeJS.WriteStream = process.stderr,
): Promise<DownloadProgress> {
  if (totalBytes !== undefined && terminal.isTTY) return drawBar(receivedBytes, totalBytes, terminal);
  let received = receivedBytes;
  let toldAt = Date.now();
  return {
    advance(bytes) {
      received += bytes;
      if (Date.now() - toldAt < LINE_EVERY_MS) return;
      toldAt = Date.now();
      tell(describeProgress(received, totalBytes));
    },
    end() {},
  };
}

/** "12 % of 98 MB", or "12 MB" where the whole is unknown. */
export function describeProgress(receivedBytes: number, totalBytes: number | undefined): string {
  if (totalBytes === undefined) return formatBytes(receivedBytes);
  return `${totalBytes === 0 ? 100 : Math.floor((receivedBytes / totalBytes) * 100)} % of ${formatBytes(totalBytes)}`;
}

async function drawBar(
  receivedBytes: number,
  totalBytes: number,
  terminal: NodeJS.WriteStream,
): Promise<DownloadProgress> {
  const { default: cliProgress } = await import("cli-progress");
  const bar = new cliProgress.SingleBar(
    {
      stream: terminal,
      format: "{bar} {percentage} % of {size}, {eta_formatted} left",
      barsize: 30,
      fps: 5,
      clearOnComplete: true,
      // Turned off for the bar, wrapping would stay off in the terminal of a process that is killed.
      linewrap: true,
    },
    cliProgress.Presets.shades_classic,
  );
  bar.start(totalBytes, receivedBytes, { size: formatBytes(totalBytes) });
  return { advance: (bytes) => bar.increment(bytes), end: () => bar.stop() };
}
