/** A detector that was trained with Detecto: only the constructor is written, all the rest is inherited. */
import { DetectoModelLoader, type LoaderConfig } from "infermill";
import { z } from "zod";

export class CustomDetectoModelLoader extends DetectoModelLoader {
  static override readonly options = DetectoModelLoader.options.extend({
    labels: z.array(z.string()).min(1).optional().meta({
      description: "What the model was trained on: the list given to core.Model(). Default: COCO's labels.",
    }),
  });

  constructor(config: LoaderConfig, modelName: string) {
    const section = config[modelName]!;
    // Detecto counts its labels from 1, since 0 is the background.
    const labels = section["labels"] as string[] | undefined;
    const class_names = labels ? ["__background__", ...labels] : section.class_names;
    super({ ...config, [modelName]: { ...section, class_names } }, modelName);
  }
}
