/** How far a bulk run is: a bar on a terminal, a line now and then elsewhere. */
import cliProgress from "cli-progress";
import { formatDuration } from "../core/duration.ts";

const LINE_EVERY_MS = 5000;

export interface BulkProgress {
  update(state: { status: string; total: number; succeeded: number; failed: number; rate: number }): void;
  /** Leaves the bar as it stands. */
  end(): void;
}

export function showBulkProgress(terminal: NodeJS.WriteStream = process.stderr): BulkProgress {
  return terminal.isTTY ? drawBar(terminal) : writeLines(terminal);
}

function writeLines(stream: NodeJS.WriteStream): BulkProgress {
  let toldAt = Date.now();
  return {
    update(state) {
      if (Date.now() - toldAt < LINE_EVERY_MS) return;
      toldAt = Date.now();
      const { status, total, succeeded, failed, rate } = state;
      stream.write(
        status === "running"
          ? `${succeeded + failed} of ${total} done, ${failed} failed, ${rate.toFixed(1)} images/s, ${etaOf(state)} left\n`
          : `${total} files found\n`,
      );
    },
    end() {},
  };
}

function drawBar(terminal: NodeJS.WriteStream): BulkProgress {
  const bar = new cliProgress.SingleBar(
    {
      stream: terminal,
      format: "{bar} {value}/{total} · {rate} images/s · {failed} failed · {left} left",
      barsize: 30,
      fps: 5,
      // Turned off for the bar, wrapping would stay off in the terminal of a process that is killed.
      linewrap: true,
    },
    cliProgress.Presets.shades_classic,
  );
  let isStarted = false;
  return {
    update(state) {
      const { status, total, succeeded, failed, rate } = state;
      if (status !== "running") return;
      const payload = { rate: rate.toFixed(1), failed, left: etaOf(state) };
      if (isStarted) bar.update(succeeded + failed, payload);
      else bar.start(total, succeeded + failed, payload);
      isStarted = true;
    },
    end() {
      if (isStarted) bar.stop();
    },
  };
}

function etaOf({
  total,
  succeeded,
  failed,
  rate,
}: {
  total: number;
  succeeded: number;
  failed: number;
  rate: number;
}): string {
  return rate > 0 ? formatDuration((total - succeeded - failed) / rate) : "?";
}
