import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ImplausibleOutputError } from "../../../../src/errors.ts";
import { chooseHead, UnclearHeadError } from "../../../../src/loaders/vision/heads/choose.ts";
import {
  DETECTOR_FORMATS,
  type DetectionTask,
  type Detection,
  type DetectorFormat,
  type Evidence,
  type OutputShape,
} from "../../../../src/loaders/vision/heads/head.ts";
import type { OutputRow } from "../../../../src/loaders/pictures/OnnxPictureModelLoader.ts";

const canvas = { width: 128, height: 128 };
const cellsOf = (strides: number[]) =>
  strides.reduce((sum, s) => sum + (canvas.width / s) * (canvas.height / s), 0);

/** A thing that a head was told to find: centre and size in pixels. */
interface Thing {
  x: number;
  y: number;
  width: number;
  height: number;
  score: number;
  classIndex: number;
  angle: number;
}

/** A head that was written on purpose, so that what it means is known. */
interface Written {
  name: string;
  classes: number;
  task: DetectionTask;
  shapes: OutputShape[];
  row: OutputRow;
  things: Thing[];
  inputs?: string[];
  /** Whether the class index is one higher than the label's place, as where 0 is the background. */
  firstClass?: 1;
}

const output = (name: string, dims: number[], data: ArrayLike<number>, batched = true, type = "float32") => ({
  shape: { name, type, dims, batched } satisfies OutputShape,
  entry: [name, { data: Float32Array.from(data), dims }] as const,
});
const written = (
  rest: Omit<Written, "shapes" | "row">,
  outputs: readonly ReturnType<typeof output>[],
): Written => ({
  ...rest,
  shapes: outputs.map(({ shape }) => shape),
  row: Object.fromEntries(outputs.map(({ entry }) => entry)),
});

function transpose(data: ArrayLike<number>, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      turned[column * rows + row] = data[row * columns + column]!;
  return turned;
}

const POINTS = 17;
const MASKS = 8;

/** [boxes, features] of a raw head, features last. */
function rawNumbers(
  things: Thing[],
  boxes: number,
  classes: number,
  task: DetectionTask,
  objectness: "none" | "one" | "half",
) {
  const first = objectness === "none" ? 4 : 5;
  const extras = { detect: 0, segment: MASKS, pose: 3 * POINTS, obb: 1 }[task];
  const features = first + classes + extras;
  const data = new Float32Array(boxes * features);
  if (objectness === "one") for (let box = 0; box < boxes; box++) data[box * features + 4] = 1;
  for (const [index, thing] of things.entries()) {
    const at = Math.floor(((index + 0.5) * boxes) / things.length) * features;
    data.set([thing.x, thing.y, thing.width, thing.height], at);
    if (objectness !== "none") data[at + 4] = objectness === "one" ? 1 : 0.96;
    data[at + first + thing.classIndex] = thing.score / (objectness === "half" ? 0.96 : 1);
    if (task === "obb") data[at + features - 1] = thing.angle;
    if (task === "pose")
      for (let point = 0; point < POINTS; point++)
        data.set([thing.x + point, thing.y, 0.5], at + first + classes + 3 * point);
    if (task === "segment") data.fill(0.5, at + first + classes, at + features);
  }
  return { data, features };
}

const prototypes = () => output("output1", [MASKS, 32, 32], new Float32Array(MASKS * 32 * 32));
const P5 = cellsOf([8, 16, 32]);
const P6 = cellsOf([8, 16, 32, 64]);
const sides = ({ x, y, width, height }: Thing) => [
  x - width / 2,
  y - height / 2,
  x + width / 2,
  y + height / 2,
];
const fractions = ([a, b, c, d]: number[]) => [
  a! / canvas.width,
  b! / canvas.height,
  c! / canvas.width,
  d! / canvas.height,
];

type Writer = (things: Thing[], classes: number, task: DetectionTask) => Written | undefined;

const WRITERS: Record<string, Writer> = {
  ...Object.fromEntries(
    (
      [
        ["yolov8", 1, "none", true],
        ["yolov8 turned", 1, "none", false],
        ["yolov6", 1, "one", false],
        ["yolox decoded", 1, "half", false],
        ["yolov5", 3, "half", false],
        ["yolov5 turned", 3, "half", true],
      ] as const
    ).flatMap(([name, anchors, objectness, featuresFirst]) =>
      [P5, P6].map((cells, at): [string, Writer] => [
        `${name} ${at === 0 ? "P5" : "P6"}`,
        (things, classes, task) => {
          if (objectness !== "none" && (task === "obb" || (anchors === 1 && task !== "detect")))
            return undefined;
          const boxes = anchors * cells;
          const { data, features } = rawNumbers(things, boxes, classes, task, objectness);
          const main = featuresFirst
            ? output("output0", [features, boxes], transpose(data, boxes, features))
            : output("output0", [boxes, features], data);
          return written({ name, classes, task, things }, [
            main,
            ...(task === "segment" ? [prototypes()] : []),
          ]);
        },
      ]),
    ),
  ),
  "yolox raw": (things, classes, task) => {
    if (task !== "detect") return undefined;
    const features = 5 + classes;
    const data = new Float32Array(P5 * features);
    // Each in the cell of stride 8 that its centre lies in.
    for (const thing of things) {
      const [column, line] = [Math.floor(thing.x / 8), Math.floor(thing.y / 8)];
      const at = (line * (canvas.width / 8) + column) * features;
      data.set(
        [
          thing.x / 8 - column,
          thing.y / 8 - line,
          Math.log(thing.width / 8),
          Math.log(thing.height / 8),
          0.96,
        ],
        at,
      );
      data[at + 5 + thing.classIndex] = thing.score / 0.96;
    }
    return written({ name: "yolox raw", classes, task, things }, [output("output", [P5, features], data)]);
  },
  "end-to-end": (things, classes, task) => {
    const extras = { detect: 0, segment: MASKS, pose: 3 * POINTS, obb: 1 }[task];
    const data = new Float32Array(300 * (6 + extras));
    for (const [index, thing] of things.entries()) {
      const at = index * (6 + extras);
      const { x, y, width, height } = thing;
      data.set(
        [...(task === "obb" ? [x, y, width, height] : sides(thing)), thing.score, thing.classIndex],
        at,
      );
      if (task === "obb") data[at + 6] = thing.angle;
      if (task === "pose")
        for (let point = 0; point < POINTS; point++) data.set([x + point, y, 0.5], at + 6 + 3 * point);
    }
    const main = output("output0", [300, 6 + extras], data);
    return written({ name: "end-to-end", classes, task, things }, [
      main,
      ...(task === "segment" ? [prototypes()] : []),
    ]);
  },
  "rt-detr tensor": (things, classes, task) => {
    if (task !== "detect") return undefined;
    const data = new Float32Array(300 * (4 + classes));
    for (const [index, { x, y, width, height, score, classIndex }] of things.entries()) {
      data.set(fractions([x, y, width, height]), index * (4 + classes));
      data[index * (4 + classes) + 4 + classIndex] = score;
    }
    return written({ name: "rt-detr tensor", classes, task, things }, [
      output("output0", [300, 4 + classes], data),
    ]);
  },
  ...Object.fromEntries(
    (
      [
        ["rt-detr", "pred_boxes", "logits", 0],
        ["detr", "pred_boxes", "logits", 1],
        ["rf-detr", "dets", "labels", 0],
      ] as const
    ).map(([name, boxesName, scoresName, nothing]): [string, Writer] => [
      name,
      (things, classes, task) => {
        if (task !== "detect") return undefined;
        const width = classes + nothing;
        const boxes = new Float32Array(300 * 4).fill(0.1);
        const logits = new Float32Array(300 * width).fill(-12);
        if (nothing) for (let box = 0; box < 300; box++) logits[box * width + classes] = 12;
        for (const [index, { x, y, width: w, height, score, classIndex }] of things.entries()) {
          boxes.set(fractions([x, y, w, height]), index * 4);
          logits[index * width + classIndex] = Math.log(score / (1 - score));
          if (nothing) logits[index * width + classes] = 0;
        }
        return written({ name, classes, task, things }, [
          output(boxesName, [300, 4], boxes),
          output(scoresName, [300, width], logits),
        ]);
      },
    ]),
  ),
  ...Object.fromEntries(
    (["yolo-nas", "picodet"] as const).map((name): [string, Writer] => [
      name,
      (things, classes, task) => {
        if (task !== "detect") return undefined;
        const boxes = new Float32Array(P5 * 4);
        const scores = new Float32Array(P5 * classes);
        for (const [index, thing] of things.entries()) {
          boxes.set(sides(thing), index * 4);
          scores[index * classes + thing.classIndex] = thing.score;
        }
        return written({ name, classes, task, things }, [
          output("boxes", [P5, 4], boxes),
          name === "picodet"
            ? output("scores", [classes, P5], transpose(scores, P5, classes))
            : output("scores", [P5, classes], scores),
        ]);
      },
    ]),
  ),
  ...Object.fromEntries(
    (
      [
        ["torchvision", "boxes", "scores", "labels", undefined],
        ["tensorflow", "detection_boxes", "detection_scores", "detection_classes", "num_detections"],
        ["efficient-nms", "det_boxes", "det_scores", "det_classes", "num_dets"],
        ["ssd", "bboxes", "scores", "labels", undefined],
        ["orig_target_sizes", "boxes", "scores", "labels", undefined],
      ] as const
    ).map(([name, boxesName, scoresName, classesName, count]): [string, Writer] => [
      name,
      (things, classes, task) => {
        if (task !== "detect") return undefined;
        const first = ["torchvision", "tensorflow", "ssd"].includes(name) ? 1 : 0;
        const boxes = things.flatMap((thing) => {
          const isFraction = name === "tensorflow" || name === "ssd";
          const [a, b, c, d] = isFraction ? fractions(sides(thing)) : sides(thing);
          return name === "tensorflow" ? [b!, a!, d!, c!] : [a!, b!, c!, d!];
        });
        const n = things.length;
        return written(
          {
            name,
            classes,
            task,
            things,
            ...(first === 1 && { firstClass: 1 }),
            ...(name === "orig_target_sizes" && { inputs: ["images", name] }),
          },
          [
            output(boxesName, [n, 4], boxes),
            output(
              scoresName,
              [n],
              things.map(({ score }) => score),
            ),
            output(
              classesName,
              [n],
              things.map(({ classIndex }) => classIndex + first),
              true,
              "int64",
            ),
            ...(count === undefined ? [] : [output(count, [1], [n])]),
          ],
        );
      },
    ]),
  ),
  "yolov7-end2end": (things, classes, task) =>
    task === "detect"
      ? written({ name: "yolov7-end2end", classes, task, things }, [
          output(
            "output",
            [things.length, 7],
            things.flatMap((thing) => [0, ...sides(thing), thing.classIndex, thing.score]),
            false,
          ),
        ])
      : undefined,
  "yolo-nas-flat": (things, classes, task) =>
    task === "detect"
      ? written({ name: "yolo-nas-flat", classes, task, things }, [
          output(
            "graph2_flat_predictions",
            [things.length, 7],
            things.flatMap((thing) => [0, ...sides(thing), thing.score, thing.classIndex]),
            false,
          ),
        ])
      : undefined,
  mmdetection: (things, classes, task) =>
    task === "detect"
      ? written({ name: "mmdetection", classes, task, things }, [
          output(
            "dets",
            [things.length + 1, 5],
            [...things.flatMap((thing) => [...sides(thing), thing.score]), 0, 0, 0, 0, 0],
          ),
          output(
            "labels",
            [things.length + 1],
            [...things.map(({ classIndex }) => classIndex), -1],
            true,
            "int64",
          ),
        ])
      : undefined,
  "centernet maps": (things, classes, task) => {
    if (task !== "detect") return undefined;
    const cells = canvas.width / 4;
    const plane = cells * cells;
    const heat = new Float32Array(classes * plane).fill(-9);
    const [size, offset] = [new Float32Array(2 * plane), new Float32Array(2 * plane)];
    for (const { x, y, width, height, score, classIndex } of things) {
      const [column, line] = [Math.floor(x / 4), Math.floor(y / 4)];
      const cell = line * cells + column;
      heat[classIndex * plane + cell] = Math.log(score / (1 - score));
      size.set([width / 4], cell);
      size.set([height / 4], plane + cell);
      offset.set([x / 4 - column], cell);
      offset.set([y / 4 - line], plane + cell);
    }
    return written({ name: "centernet maps", classes, task, things }, [
      output("hm", [classes, cells, cells], heat),
      output("wh", [2, cells, cells], size),
      output("reg", [2, cells, cells], offset),
    ]);
  },
  paddle: (things, classes, task) =>
    task === "detect"
      ? written({ name: "paddle", classes, task, things }, [
          output(
            "multiclass_nms3_0.tmp_0",
            [things.length, 6],
            things.flatMap((thing) => [thing.classIndex, thing.score, ...sides(thing)]),
            false,
          ),
          output("multiclass_nms3_0.tmp_2", [], [things.length]),
        ])
      : undefined,
};

/** Which formats each loader chooses from, as its class says. */
const CHOICES: readonly (readonly DetectorFormat[])[] = [
  DETECTOR_FORMATS.filter((format) => format !== "yolox-legacy"),
  [
    "yolov8",
    "yolov5",
    "yolov6",
    "end-to-end",
    "yolov7-end2end",
    "yolo-nas",
    "yolo-nas-flat",
    "efficient-nms",
    "rt-detr",
  ],
  ["yolox"],
  ["torchvision", "tensorflow", "ssd"],
];

const anyThing = (classes: number) =>
  fc
    .record({
      // Places of their own, so that each thing is found once.
      column: fc.integer({ min: 0, max: 3 }),
      line: fc.integer({ min: 0, max: 3 }),
      width: fc.integer({ min: 8, max: 24 }),
      height: fc.integer({ min: 8, max: 24 }),
      score: fc.integer({ min: 55, max: 95 }).map((score) => score / 100),
      classIndex: fc.integer({ min: 0, max: classes - 1 }),
      angle: fc.integer({ min: -15, max: 15 }).map((angle) => angle / 10),
    })
    .map(({ column, line, ...rest }) => ({ ...rest, x: 16 + 32 * column, y: 16 + 32 * line }));

const anyHead = fc
  .record({
    writer: fc.constantFrom(...Object.keys(WRITERS)),
    classes: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constantFrom(15, 16, 51, 52, 79, 80, 81, 90, 91)),
    task: fc.constantFrom<DetectionTask>("detect", "detect", "segment", "pose", "obb"),
    labels: fc.constantFrom("right", "right", "none", "one more", "one fewer"),
    says: fc.constantFrom("nothing", "task", "task and end2end"),
    choice: fc.constantFrom(...CHOICES),
  })
  .chain((head) =>
    fc.record({
      head: fc.constant(head),
      things: fc.uniqueArray(anyThing(head.classes), {
        minLength: 1,
        maxLength: 3,
        selector: ({ x, y }) => `${x},${y}`,
      }),
    }),
  );

describe("a detector's head", () => {
  it("of any random layout is read right or refused, never read wrong", () => {
    const counts = { right: 0, refused: 0 };
    const rightBy = new Map<string, number>();
    fc.assert(
      fc.property(anyHead, ({ head, things }) => {
        const made = WRITERS[head.writer]!(things, head.classes, head.task);
        if (!made) return;
        const off = { right: 0, none: 0, "one more": 1, "one fewer": -1 }[head.labels];
        const shift = made.firstClass ?? 0;
        const labels = head.labels === "none" ? 0 : Math.max(1, head.classes + off) + shift;
        const evidence: Evidence = {
          canvas,
          labels,
          task: head.says === "nothing" ? undefined : head.task,
          endToEnd: head.says === "task and end2end" ? head.writer === "end-to-end" : undefined,
          // A pose's metadata has its shape; who says nothing says nothing of it, either.
          keyPointShape: head.says !== "nothing" && head.task === "pose" ? [POINTS, 3] : undefined,
          inputs: made.inputs ?? ["images"],
          operators: new Set(head.task === "obb" ? ["Sin", "Cos"] : []),
        };
        let detections: Detection[];
        let task: DetectionTask;
        try {
          const chosen = chooseHead(made.shapes, evidence, head.choice);
          task = chosen.task;
          detections = chosen.read({ row: made.row, canvas, threshold: 0.5, labels });
        } catch (error) {
          if (!(error instanceof UnclearHeadError || error instanceof ImplausibleOutputError)) throw error;
          counts.refused++;
          return;
        }
        counts.right++;
        rightBy.set(head.writer, (rightBy.get(head.writer) ?? 0) + 1);
        expect(task).toBe(made.task);
        const seen = detections
          .map((each) => ({
            sides: [each.left, each.top, each.right, each.bottom],
            score: each.score,
            classIndex: each.classIndex,
            angle: each.rotated?.angle,
            points: each.keyPoints?.length,
          }))
          .toSorted((a, b) => a.classIndex - b.classIndex || b.score - a.score || a.sides[0]! - b.sides[0]!);
        expect(seen).toHaveLength(things.length);
        for (const thing of things) {
          const twin = seen.find(
            ({ score, classIndex, sides: found }) =>
              classIndex === thing.classIndex + shift &&
              Math.abs(score - thing.score) < 0.001 &&
              Math.abs((found[0]! + found[2]!) / 2 - thing.x) < 0.1 &&
              Math.abs((found[1]! + found[3]!) / 2 - thing.y) < 0.1,
          );
          expect(twin, JSON.stringify({ thing, seen })).toBeDefined();
          if (made.task === "obb") expect(twin!.angle).toBeCloseTo(thing.angle, 3);
          else {
            expect(twin!.sides[2]! - twin!.sides[0]!).toBeCloseTo(thing.width, 1);
            expect(twin!.sides[3]! - twin!.sides[1]!).toBeCloseTo(thing.height, 1);
          }
          if (made.task === "pose") expect(twin!.points).toBe(POINTS);
        }
      }),
      { numRuns: 10_000 },
    );
    // Refusing everything would be no art: about 1,500 are read, give or take 100.
    expect(counts.right).toBeGreaterThan(1200);
    expect([...rightBy.keys()].toSorted(), "every layout is read somewhere").toEqual(
      Object.keys(WRITERS).toSorted(),
    );
  });
});
