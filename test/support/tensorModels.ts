/** Models of loaders that speak tensors, texts and dictionaries, for the tests of the protocols. */
import { fileURLToPath } from "node:url";

const fileOf = (name: string) => fileURLToPath(new URL(`../loaders/${name}.ts`, import.meta.url));
const model = (loader: string, file = "tensors") => ({
  loader,
  model_loader_file: fileOf(file),
  instances: 1,
});

export const tensorModels = {
  Affine: model("AffineModelLoader"),
  Echo: model("EchoTensorsModelLoader"),
  Texts: model("TextLengthModelLoader"),
  Dictionaries: model("DictionaryModelLoader"),
  Sounds: model("SoundsModelLoader"),
  Pictures: model("PictureSizeModelLoader", "pictureSize"),
};
