/** Which engines a worker starts: how many of each model, on which device, with how many threads. */
import { devicesOf, usesCores } from "../core/devices.ts";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { folderRoots } from "../config/bulkRoots.ts";
import type { Config, ModelConfig } from "../config/schema.ts";
import { inputFolder } from "../queue/inputs.ts";
import type { EngineSpec } from "../engines/protocol.ts";

/** More engines than this are started only where the configuration asks for them: each holds a copy of the model. */
const MAX_DEFAULT_INSTANCES = 16;

/**
 * One specification for each engine of each model.
 *
 * `instances` defaults to the cores divided among the models on the cpu (one single-threaded session a core beats one
 * session with many threads), and to 1 on a GPU. `intra_op_threads` defaults to the cores divided among all engines on
 * the cpu. The files of the models are not known yet: `modelPaths` is empty.
 */
export function planEngines(
  config: Config,
  models: readonly string[],
  cores = availableParallelism(),
): Map<string, EngineSpec[]> {
  const onCpu = models.filter((name) => devicesOf(config.models[name]!.device).some(usesCores));
  const instances = (model: ModelConfig, device: string) =>
    model.instances ??
    (usesCores(device) ? Math.min(MAX_DEFAULT_INSTANCES, Math.max(1, Math.floor(cores / onCpu.length))) : 1);
  const cpuEngines = onCpu.reduce((sum, name) => sum + instances(config.models[name]!, "cpu"), 0);
  const defaultThreads = Math.max(1, Math.floor(cores / Math.max(1, cpuEngines)));

  return new Map(
    models.map((modelName) => {
      const model = config.models[modelName]!;
      const specs = devicesOf(model.device).flatMap((device) =>
        Array.from({ length: instances(model, device) }, (): EngineSpec => ({
          modelName,
          model,
          configFile: config.file,
          baseDir: dirname(config.file),
          modelPaths: [],
          device,
          intraOpThreads: model.intra_op_threads ?? (usesCores(device) ? defaultThreads : 1),
          maxPicturePixels: config.max_picture_pixels,
          maxDecodedBytes: config.max_decoded_bytes,
          inputs: {
            folder: inputFolder(config),
            roots: folderRoots(config.bulk_roots),
          },
        })),
      );
      return [modelName, specs];
    }),
  );
}
