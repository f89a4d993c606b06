/** The report of a run: what its summary says and pictures of some of its entries, in one HTML file that needs nothing else. */
import type { BulkRuns } from "../bulk/runs.ts";
import type { Config } from "../config/schema.ts";
import type { StorageConfig } from "../storage/storage.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { chooseGallery } from "./gallery.ts";
import { writeReportPage, type ShownEntry } from "./reportPage.ts";
import { drawThumbnail } from "./thumbnails.ts";

/**
 * Also of a run that continues, of what has ended so far.
 * @throws BulkRunNotFoundError
 */
export async function makeReport(
  runs: BulkRuns,
  id: string,
  config: StorageConfig & Pick<Config, "max_picture_pixels">,
): Promise<string> {
  const [spec, summary] = [await runs.readSpec(id), await runs.summarize(id)];
  const { failed, leastSure, first, sample } = await chooseGallery(id, runs.resultsFile(spec));
  const options = { spec, folder: runs.folder(id), config };
  const show = async (result: BulkResult): Promise<ShownEntry> => {
    try {
      const bytes = await drawThumbnail(result, options);
      return { result, picture: `data:image/jpeg;base64,${bytes.toString("base64")}` };
    } catch (error) {
      return { result, whyNoPicture: (error as Error).message };
    }
  };
  const [failedShown, leastSureShown, firstShown, sampleShown] = await Promise.all(
    [failed, leastSure, first, sample].map((results) => Promise.all(results.map(show))),
  );
  return writeReportPage(summary, {
    failed: failedShown!,
    leastSure: leastSureShown!,
    first: firstShown!,
    sample: sampleShown!,
  });
}
