/**
 * What the built-in picture loaders share: they read what the model's file says
 * of itself before they open it, prepare pictures as the configuration or the
 * files beside the model say, and turn quantised outputs into numbers.
 */
import { z } from "zod";
import type { LoaderDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import { readModelFacts, type ModelFacts } from "../../models/modelFacts.ts";
import { readQuantisation, type Quantisation } from "../../models/quantisation.ts";
import type { TensorDescription } from "../../core/description.ts";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import {
  asFindings,
  OnnxPictureModelLoader,
  readPictureInput,
  type Interpretation,
  type NormalisationFormat,
  type OutputRow,
  type PictureInput,
} from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture, PictureSize } from "../pictures/picture.ts";
import {
  pictureOptions,
  resolvePreprocessing,
  type PictureOptions,
  type Preprocessing,
  type PreprocessingDefaults,
} from "./pictureOptions.ts";
import { suggestLoader } from "./suggestLoader.ts";

/** The options of every loader here, beside its own. */
export const visionOptions = {
  ...pictureOptions,
  output_scale: z.number().positive().optional().meta({
    description:
      "Scale of quantised outputs, (number − output_zero_point) × output_scale, where the graph doesn't hold it.",
  }),
  output_zero_point: z.int().default(0).meta({ description: "Zero point of quantised outputs." }),
};

type VisionOptions = PictureOptions & { output_scale?: number | undefined; output_zero_point: number };

export abstract class VisionModelLoader extends OnnxPictureModelLoader {
  static readonly readsLabels = true;
  /** What the model's file says of itself; ready when `load()` opens the model. */
  protected facts: ModelFacts = { said: {}, notes: [] };
  /** What was decided at load, for the description and the log. */
  protected readonly decided: Record<string, string> = {};
  /** How the graph takes the picture; ready when `wantedOutputs` is called. */
  protected pictureInput!: PictureInput;
  readonly #given: VisionOptions;
  #preprocessing: Preprocessing | undefined;
  #quantisations = new Map<string, Quantisation>();
  /** Sizes of the outputs as they were first seen, by canvas and output. */
  readonly #seenDims = new Map<string, readonly number[]>();

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#given = z.object(visionOptions).parse(this.settings);
  }

  /** How this kind of model is fed where neither the configuration nor the files beside it say it. */
  protected abstract preprocessingDefaults(input: PictureInput): PreprocessingDefaults;

  /** What a row of outputs means; quantised numbers are scaled already. */
  protected abstract interpret(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Interpretation> | Interpretation;

  /**
   * The output that holds numbers for places of the picture: the one that is named, else the first; its scale is read.
   * @param reads what the loader reads, for the message that refuses another shape
   * @param fits what its shape must be besides having a height and a width
   * @throws Error that names the loader which would fit
   */
  protected chooseMap(
    outputs: readonly TensorDescription[],
    named: string | undefined,
    reads: string,
    fits: (output: TensorDescription) => boolean = () => true,
  ): string {
    const output = named === undefined ? outputs[0] : outputs.find(({ name }) => name === named);
    if (!output) throw new Error(`output must be one of ${outputs.map(({ name }) => name).join(", ")}`);
    if (output.shape.length < 3 || !fits(output)) {
      const { name: loader } = this.constructor;
      const advice = suggestLoader(this.facts, this.settings.class_names.length, loader);
      throw new Error(
        `${loader} reads ${reads}, the output "${output.name}" has the shape [${output.shape.join(", ")}]${advice}`,
      );
    }
    this.readScales([output]);
    return output.name;
  }

  /** Labels where `class_names` is left out: those of the model's file. */
  protected defaultLabels(facts: ModelFacts): readonly string[] {
    return facts.labels ?? [];
  }

  override async load(): Promise<void> {
    const [file] = this.settings.model_path;
    if (file !== undefined) {
      this.facts = await readModelFacts(file).catch(() => this.facts);
      this.notes.push(...this.facts.notes);
      if (this.settings.class_names.length === 0) {
        this.settings = { ...this.settings, class_names: this.defaultLabels(this.facts) };
      }
    }
    await super.load();
  }

  protected override get defaultInputSize(): PictureSize {
    const stated = this.facts.preprocessing?.size ?? this.facts.inputSize;
    return stated ? { width: stated[0], height: stated[1] } : super.defaultInputSize;
  }

  protected override describeGraph(): ReturnType<OnnxPictureModelLoader["describeGraph"]> {
    const described = super.describeGraph();
    return {
      ...described,
      batch: (inputs) => {
        this.pictureInput = this.#readInput(inputs);
        return typeof described?.batch === "function" ? described.batch(inputs) : "auto";
      },
    };
  }

  #readInput(inputs: readonly TensorDescription[]): PictureInput {
    try {
      return readPictureInput(inputs);
    } catch (error) {
      const advice = suggestLoader(this.facts, this.settings.class_names.length, this.constructor.name);
      throw new Error(`models.${this.modelName}.model_path[0]: ${(error as Error).message}${advice}`, {
        cause: error,
      });
    }
  }

  protected override tensorFormat(input: PictureInput): NormalisationFormat {
    this.#preprocessing = resolvePreprocessing(
      this.#given,
      this.facts.preprocessing,
      this.preprocessingDefaults(input),
      input.channels,
    );
    return this.#preprocessing.format;
  }

  override async preprocessing(
    picture: Buffer,
    _request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]> {
    const { fit, decode } = this.#preprocessing!;
    return this.decode(picture, fit, decode);
  }

  /** How pictures are prepared; ready after `load()`. */
  protected get prepared(): Preprocessing {
    return this.#preprocessing!;
  }

  /** Finds the scales of the outputs that are read. Call it from `wantedOutputs`. */
  protected readScales(outputs: readonly TensorDescription[]): void {
    for (const { name, type } of outputs) {
      if (!/^u?int(8|16)$/.test(type)) continue;
      const scale = this.#given.output_scale;
      const found =
        (this.facts.graph && readQuantisation(this.facts.graph, name)) ??
        (scale === undefined ? undefined : { scale, zeroPoint: this.#given.output_zero_point });
      if (found) {
        this.#quantisations.set(name, found);
        this.decided[`scale of ${name}`] = `${found.scale}, zero point ${found.zeroPoint}`;
      }
    }
  }

  /**
   * Refuses outputs of whole numbers whose meaning nobody knows.
   * @throws Error that names the setting
   */
  protected needScales(outputs: readonly TensorDescription[]): void {
    const unknown = outputs.find(
      ({ name, type }) => /^u?int(8|16)$/.test(type) && !this.#quantisations.has(name),
    );
    if (unknown) {
      throw new Error(
        `the output "${unknown.name}" is quantised (${unknown.type}) and the graph doesn't say with which scale; set output_scale and output_zero_point, or export with a DequantizeLinear at the end`,
      );
    }
  }

  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    this.#checkDims(row, picture.canvas);
    return asFindings(await this.interpret(this.#scaled(row), picture, request));
  }

  #scaled(row: OutputRow): OutputRow {
    if (this.#quantisations.size === 0) return row;
    return Object.fromEntries(
      Object.entries(row).map(([name, output]) => {
        const scale = this.#quantisations.get(name);
        if (!scale) return [name, output];
        const data = Float32Array.from(output.data, (value) => (value - scale.zeroPoint) * scale.scale);
        return [name, { ...output, data }];
      }),
    );
  }

  /** Whether the number of rows of an output may differ from picture to picture. */
  protected mayVary(_output: string): boolean {
    return false;
  }

  #checkDims(row: OutputRow, { width, height }: PictureSize): void {
    for (const [name, { dims }] of Object.entries(row)) {
      if (this.mayVary(name)) continue;
      const key = `${name} ${width}×${height}`;
      const seen = this.#seenDims.get(key);
      if (seen === undefined) {
        // Pictures of their own sizes would fill it; those of one size need one entry.
        if (this.#seenDims.size < 100) this.#seenDims.set(key, dims);
      } else if (seen.join() !== dims.join()) {
        throw new ImplausibleOutputError(
          `the output "${name}" has the shape [${dims.join(", ")}], it was [${seen.join(", ")}] before; look at format, and at how the model was exported`,
        );
      }
    }
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    return { ...described, facts: { ...described.facts, ...this.facts.said, ...this.decided } };
  }
}
