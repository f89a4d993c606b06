/** IMIL's two dictionaries: what is taken, what comes back, and how their times and codes read. */
import { describe, expect, test } from "vitest";
import { InvalidRequestError, LoaderError } from "../../../src/errors.ts";
import {
  BadInputError,
  BaseModelLoader,
  buildErrorResponse,
  buildResponse,
  type Finding,
  type LoaderDescription,
  type ModelSection,
  type PredictionRequest,
} from "../../../src/index.ts";
import { checkRequest } from "../../../src/imil/requestSchema.ts";
import { formatImilTime } from "../../../src/imil/response.ts";

/** As IMIL documents it, every key that its server demands. */
const request: PredictionRequest = {
  Tid: "1",
  Did: "DeviceId",
  Fid: "1160",
  Per: [],
  Ts: "t",
  Ts_ntp: "n",
  Inf_ver: "i",
  Msg_ver: "m",
  Model: "M",
  Ad: "",
  Ffp: "ffp",
  Ltsize: "ltsize",
  Lfp: "lfp",
  Mtp: [{ Stime: "2023-04-22,04:56:28.805 AM", Etime: "2023-04-22,04:56:28.805 AM", Src: "Grabber" }],
  Base_64: "AAAA",
  C_threshold: "0.5",
  I_fn: " ",
  Msk_img: [" "],
  Rep_img: [" "],
  Prompt: [""],
};
/** What its newer client sends beside. */
const newerKeys: PredictionRequest = {
  Base_64: ["AAAA", "BBBB"],
  Per: null,
  Ad: " ",
  Roi_c: [{ X: 0, Y: 0, W: 1, H: 1 }],
  Fs: [{ Lb: "person", Cs: 0.9 }],
  Hp: { top_k: 3 },
  Text: "what is this?",
  Xai_ver: "1.0",
  Xai_explainers: ["GradCAM"],
  Xai_url: "http://explainer.example",
  FeedId: "feed-7",
};
const run = {
  model: "M",
  startedAt: new Date("2026-01-02T00:03:04.056Z"),
  endedAt: new Date("2026-01-02T12:03:04.900Z"),
};
const finding: Finding = { Cs: 0.9, Lb: "person", Dm: {} };

describe("the response", () => {
  test("echoes what identifies the request, appends its step and says Success", () => {
    expect(buildResponse(request, [finding], run)).toEqual({
      Tid: "1",
      Did: "DeviceId",
      Fid: "1160",
      Ts: "t",
      Ts_ntp: "n",
      Inf_ver: "i",
      Msg_ver: "m",
      Ad: "",
      Ffp: "ffp",
      Ltsize: "ltsize",
      Lfp: "lfp",
      I_fn: " ",
      Prompt: [""],
      Mtp: [
        ...request.Mtp!,
        { Stime: "2026-01-02,12:03:04.056 AM", Etime: "2026-01-02,12:03:04.900 PM", Src: "M" },
      ],
      Fs: [finding],
      Obase_64: [],
      Img_url: [],
      Rc: "200",
      Rm: "Success",
    });
  });

  test("has the newer client's keys where they are sent, as they came, and no key that was not", () => {
    const response = buildResponse({ Ad: " ", Hp: { top_k: 3 }, Mtp: null }, [], run);
    expect(response).toMatchObject({ Ad: " ", Hp: { top_k: 3 } });
    expect(Object.keys(response)).not.toContain("Tid");
    expect(response.Mtp).toHaveLength(1);
  });

  test("nothing found is Fs [] with Rc 200, and a failure is Fs [] with another", () => {
    expect(buildResponse(request, [], run)).toMatchObject({ Fs: [], Rc: "200", Rm: "Success" });
    expect(buildErrorResponse(request, new BadInputError("no picture"), run)).toMatchObject({
      Tid: "1",
      Fs: [],
      Rc: "422",
      Rm: "no picture",
      Mtp: [{ Src: "Grabber" }, { Src: "M" }],
    });
    expect(buildErrorResponse({}, new LoaderError("oops"), run)).toMatchObject({ Rc: "500", Rm: "oops" });
  });

  test.each([
    ["2026-11-22T00:00:00.000Z", "2026-11-22,12:00:00.000 AM"],
    ["2026-11-22T11:59:59.999Z", "2026-11-22,11:59:59.999 AM"],
    ["2026-11-22T12:00:00.001Z", "2026-11-22,12:00:00.001 PM"],
    ["2026-11-22T13:04:05.006Z", "2026-11-22,01:04:05.006 PM"],
    ["2026-11-22T23:59:00.100Z", "2026-11-22,11:59:00.100 PM"],
  ])("the time %s reads %s", (time, text) => {
    expect(formatImilTime(new Date(time))).toBe(text);
  });
});

describe("the request", () => {
  test("of IMIL's documents and of its newer client is taken as it is", () => {
    expect(checkRequest(request, "M")).toBe(request);
    const newer = { ...request, ...newerKeys, Unknown: [1, { deep: true }] };
    expect(checkRequest(newer, "M")).toBe(newer);
  });

  test.each<[string, PredictionRequest]>([
    ["no key at all", {}],
    [
      "null where IMIL has strings and lists",
      { Tid: null, Per: null, Mtp: null, Base_64: null, Prompt: null },
    ],
    ["numbers where IMIL has strings", { Fid: 7, Ts: 1700000000 }],
    ["a threshold as text", { C_threshold: "0.25" }],
    ["a blank threshold", { C_threshold: " " }],
    ["an object in Ad", { Ad: { camera: 3 } }],
  ])("with %s is taken", (_name, given) => {
    expect(checkRequest(given, "M")).toBe(given);
  });

  test("names all wrong keys and all that the loader needs at once", () => {
    const needs: LoaderDescription = { labels: [], picture: "required", requiredKeys: ["Prompt", "Fid"] };
    const wrong = {
      Tid: { a: 1 },
      C_threshold: 1.5,
      Mtp: [{ Src: "a" }, "b"],
      Base_64: " ",
      Prompt: [""],
      Fid: 1,
      Per: 7,
    };
    const faults = (given: unknown) => {
      try {
        checkRequest(given, "M", needs);
      } catch (error) {
        return (error as InvalidRequestError).faults.map(({ key, problem }) => `${key} ${problem}`);
      }
      return [];
    };
    expect(faults(wrong)).toEqual([
      'Tid must be a string or a number, got {"a":1}',
      "Per must be a list, got 7",
      'Mtp[1] must be an object, got "b"',
      "C_threshold must be a number from 0 to 1 (or one in a string), got 1.5",
      expect.stringMatching(/^Base_64 is missing: the model "M" needs a picture/),
      'Prompt is missing: the model "M" needs it',
    ]);
    expect(faults({ image: "photos/a.jpg", Prompt: [["a cat"]], Fid: "1" })).toEqual([]);
  });

  test.each([[null], [[]], ["text"], [7]])("%j is no dictionary", (given) => {
    expect(() => checkRequest(given, "M")).toThrow(/^a request must be a JSON object, got /);
  });
});

describe("a loader", () => {
  class SpyModelLoader extends BaseModelLoader {
    readonly seen: unknown[][] = [];

    override async predict(...given: unknown[]): Promise<Finding[]> {
      this.seen.push(given);
      return [{ ...finding, Lb: String((given[0] as Buffer)[0]) }];
    }
  }
  const spy = () => new SpyModelLoader({ M: { class_names: [] } as unknown as ModelSection }, "M");

  test("gets every key, known or not, and each picture in its order; findings say which one they are of", async () => {
    const loader = spy();
    const pictures = [Buffer.from([7, 0]), Buffer.from([8, 0])].map((bytes) => bytes.toString("base64"));
    const given = {
      ...request,
      ...newerKeys,
      Unknown: true,
      Base_64: [`data:image/jpeg;base64,${pictures[0]}`, pictures[1]!],
    };
    const { Fs } = await loader.predictRequest(given);
    expect(Fs).toEqual([
      { ...finding, Lb: "7", Info: "0" },
      { ...finding, Lb: "8", Info: "1" },
    ]);
    expect(loader.seen.map(([, threshold]) => threshold)).toEqual([0.5, 0.5]);
    expect(loader.seen[0]![2]).toBe(given);
  });

  test("marks nothing where there is one picture, even in a list", async () => {
    const { Fs } = await spy().predictRequest({ Base_64: ["BwA="] });
    expect(Fs).toEqual([{ ...finding, Lb: "7" }]);
  });
});
