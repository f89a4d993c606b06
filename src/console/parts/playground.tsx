/** A model to be tried: what goes in, settings, the answer, and the call that was made. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { call, pathOf, SERVER, useAction, useEvents } from "../api.ts";
import type { InputOfModel, Model } from "../answers.ts";
import type { Prediction } from "../../core/prediction.ts";
import { bodyFormOf, pathOfCall, type Call } from "../call.ts";
import {
  acceptOf,
  exampleOfTensors,
  fileInputsOf,
  inputFormsOf,
  parseObject,
  takesPictures,
  type InputForm,
} from "../inputs.ts";
import { isFinal } from "../../core/prediction.ts";
import { routeTo } from "../route.ts";
import { picturesOfPrediction, rememberPictures } from "../sentPictures.ts";
import { useSession } from "../session.ts";
import { KeysField } from "./fields.tsx";
import { PredictionResult, type ShownPicture } from "./result.tsx";
import { Snippets } from "./snippets.tsx";
import { ErrorNote, StatusMark, Tabs } from "./states.tsx";

/** A file that was chosen for an input. */
interface Chosen {
  field: string;
  file: File;
  /** Of the file, for pictures and sounds. */
  url: string;
}

interface Settings {
  /** The model's own where it is undefined. */
  threshold?: number | undefined;
  /** One a line. */
  prompts: string;
  /** Further keys of the request, as JSON. */
  more: string;
}

const FORM_TITLES: Record<InputForm, string> = {
  files: "File",
  text: "Text",
  tensors: "Tensors",
  request: "Request",
};

/** @param isStart large, as the first thing that is seen */
export function Playground({ model, isStart = false }: { model: Model; isStart?: boolean }) {
  const session = useSession();
  const forms = inputFormsOf(model);
  const [form, setForm] = useState(forms[0]!);
  const current = forms.includes(form) ? form : forms[0]!;
  const [files, setFiles] = useState<readonly Chosen[]>([]);
  const [text, setText] = useState("");
  const [json, setJson] = useState<string>();
  const [settings, setSettings] = useState<Settings>({ prompts: "", more: "" });
  const [prediction, setPrediction] = useState<Prediction>();
  const example = useMemo(
    () => (model.tensors ? exampleOfTensors(model.tensors.inputs) : "{}"),
    [model.tensors],
  );
  const shownJson = json ?? (current === "tensors" ? example : "{\n  \n}");
  const draft = draftOf(model, current, { files, text, json: shownJson, settings });

  const submission = useAction(async (chosen: readonly Chosen[]) => {
    setPrediction(undefined);
    const made = draftOf(model, current, { files: chosen, text, json: shownJson, settings });
    if (made.call === undefined) return;
    const accepted = await submit(made.call, chosen);
    rememberPictures(accepted.id, picturesOf(chosen));
    setPrediction(accepted);
  });
  const cancellation = useAction(async ({ id }: Prediction) => {
    setPrediction(
      await call<Prediction>(pathOf(["models", model.name, "predictions", id]), { method: "DELETE" }),
    );
  });
  const isRunning = prediction !== undefined && !isFinal(prediction.status);
  useEvents<Prediction>(
    isRunning ? pathOf(["models", model.name, "predictions", prediction.id, "events"]) : undefined,
    "status",
    setPrediction,
    ({ status }) => isFinal(status),
  );

  const choose = (chosen: readonly Chosen[]) => {
    setFiles(chosen);
    setPrediction(undefined);
    submission.clear();
    const next = draftOf(model, "files", { files: chosen, text, json: shownJson, settings });
    if (next.call && !session.read_only) submission.run(chosen);
  };
  const isBusy = submission.isBusy || isRunning;
  const pictures = prediction ? picturesOfPrediction(prediction.id) : picturesOf(files);

  return (
    <section class={isStart ? "playground is-start" : "playground"}>
      {forms.length > 1 && (
        <Tabs
          label="What goes in"
          tabs={forms.map((id) => ({ id, title: id === "files" ? titleOfFiles(model) : FORM_TITLES[id] }))}
          current={current}
          onChoose={(id) => {
            setForm(id);
            setPrediction(undefined);
            submission.clear();
          }}
        />
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          submission.run(files);
        }}
      >
        {current === "files" && (
          <FileInputs
            inputs={fileInputsOf(model)}
            files={files}
            isDisabled={session.read_only}
            sample={takesPictures(model) ? `${SERVER}console/sample.jpg` : undefined}
            onChoose={choose}
          />
        )}
        {current === "text" && (
          <label class="field">
            <span>Text, each line one text</span>
            <textarea rows={4} value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        )}
        {(current === "tensors" || current === "request") && (
          <label class="field">
            <span>
              {current === "tensors" ? "Request with tensors, as JSON" : "Request dictionary, as JSON"}
            </span>
            <textarea
              class="code"
              rows={Math.min(16, shownJson.split("\n").length + 2)}
              spellcheck={false}
              value={shownJson}
              onInput={(event) => setJson(event.currentTarget.value)}
            />
          </label>
        )}
        <div class="controls">
          <SettingFields model={model} settings={settings} onChange={setSettings} form={current} />
          <button
            class="main"
            type="submit"
            disabled={isBusy || draft.call === undefined || session.read_only}
          >
            {isBusy ? "Running …" : "Run"}
          </button>
          {isRunning && !session.read_only && (
            <button type="button" disabled={cancellation.isBusy} onClick={() => cancellation.run(prediction)}>
              Cancel
            </button>
          )}
          <span class="outcome" role="status">
            {prediction ? (
              <>
                <StatusMark status={prediction.status} />{" "}
                <a href={routeTo(["predictions", model.name, prediction.id])}>
                  <code>{prediction.id}</code>
                </a>
              </>
            ) : session.read_only ? (
              "This console is read-only."
            ) : (
              draft.missing
            )}
          </span>
        </div>
      </form>
      {submission.error && <ErrorNote error={submission.error} />}
      {cancellation.error && <ErrorNote error={cancellation.error} />}
      {prediction ? (
        <PredictionResult key={prediction.id} prediction={prediction} pictures={pictures} />
      ) : (
        pictures.length > 0 && <PlainPictures pictures={pictures} />
      )}
      {draft.call && <Snippets call={draft.call} />}
    </section>
  );
}

function PlainPictures({ pictures }: { pictures: readonly ShownPicture[] }) {
  return (
    <div class="pictures">
      {pictures.map(({ src, name }) => (
        <div key={src} class="picture">
          <img src={src} alt={name} />
        </div>
      ))}
    </div>
  );
}

function titleOfFiles(model: Model): string {
  const types = fileInputsOf(model).flatMap(({ media_types }) => media_types);
  if (types.every((type) => type.startsWith("image/"))) return "Picture";
  return types.every((type) => type.startsWith("audio/")) ? "Sound" : "File";
}

interface Draft {
  /** undefined while something is missing. */
  call?: Call;
  /** What is missing. */
  missing?: string;
}

/** The call that the fields make. */
function draftOf(
  model: Model,
  form: InputForm,
  given: { files: readonly Chosen[]; text: string; json: string; settings: Settings },
): Draft {
  const { files, text, json, settings } = given;
  const request: Record<string, unknown> = {};
  if (settings.threshold !== undefined) request["C_threshold"] = settings.threshold;
  const prompts = linesOf(settings.prompts);
  if (prompts.length > 0) request["Prompt"] = [prompts];
  else if (needsPrompt(model)) return { missing: "Name what to look for first." };
  const more = parseObject(settings.more);
  if (more === undefined) return { missing: "The further keys are no JSON object yet." };
  Object.assign(request, more);
  if (form === "files") {
    const empty = fileInputsOf(model).find(
      ({ name, required }) => required && !files.some(({ field }) => field === name),
    );
    if (empty || (files.length === 0 && model.inputs === null)) {
      return files.length === 0 ? {} : { missing: `Choose a file for ${empty?.name}.` };
    }
    if (files.length === 0) return {};
    const sent = files.map(({ field, file }) => ({ field, name: file.name, mediaType: file.type }));
    return { call: { model: model.name, files: sent, request } };
  }
  if (form === "text") {
    const lines = linesOf(text);
    if (lines.length === 0) return {};
    return {
      call: {
        model: model.name,
        files: [],
        request: { Text: lines.length === 1 ? lines[0] : lines, ...request },
      },
    };
  }
  const dictionary = parseObject(json);
  if (dictionary === undefined) return { missing: "This is no JSON object yet." };
  return { call: { model: model.name, files: [], request: { ...dictionary, ...request } } };
}

function needsPrompt({ required_keys: keys }: Model): boolean {
  return keys?.includes("Prompt") ?? false;
}

function linesOf(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function picturesOf(files: readonly Chosen[]): ShownPicture[] {
  return files
    .filter(({ file }) => file.type.startsWith("image/"))
    .map(({ file, url }) => ({ src: url, name: file.name }));
}

/** Sends what the snippets show, and doesn't wait: the end is followed. */
function submit(made: Call, files: readonly Chosen[]): Promise<Prediction> {
  const path = pathOfCall(made);
  const form = bodyFormOf(made);
  if (form === "json") return call(path, { method: "POST", body: made.request });
  if (form === "bytes") {
    const [{ file }] = files as [Chosen];
    return call(path, { method: "POST", body: file, headers: { "Content-Type": file.type } });
  }
  const body = new FormData();
  for (const { field, file } of files) body.append(field, file, file.name);
  if (Object.keys(made.request).length > 0) body.set("request", JSON.stringify(made.request));
  return call(path, { method: "POST", body });
}

/** A zone to drop files on for each input. What is pasted, and what is dropped elsewhere, goes to the first one that is empty. */
function FileInputs(props: {
  inputs: readonly InputOfModel[];
  files: readonly Chosen[];
  isDisabled: boolean;
  sample: string | undefined;
  onChoose: (files: readonly Chosen[]) => void;
}) {
  const { inputs, files, isDisabled, sample, onChoose } = props;
  const put = (input: InputOfModel, given: readonly File[]) => {
    const chosen = (input.multiple ? given : given.slice(0, 1)).map((file) => ({
      field: input.name,
      file,
      url: URL.createObjectURL(file),
    }));
    if (chosen.length > 0) onChoose([...files.filter(({ field }) => field !== input.name), ...chosen]);
  };
  const [isOver, setOver] = useState(false);

  useEffect(() => {
    const take = (given: readonly File[]) => {
      if (isDisabled) return;
      const empty = inputs.find(({ name }) => !files.some(({ field }) => field === name));
      put(empty ?? inputs[0]!, given);
    };
    const paste = (event: ClipboardEvent) => {
      const given = [...(event.clipboardData?.files ?? [])];
      if (given.length === 0) return;
      event.preventDefault();
      take(given);
    };
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      setOver(false);
      if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      take([...event.dataTransfer.files]);
    };
    document.addEventListener("paste", paste);
    document.addEventListener("dragover", over);
    document.addEventListener("dragleave", leave);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("paste", paste);
      document.removeEventListener("dragover", over);
      document.removeEventListener("dragleave", leave);
      document.removeEventListener("drop", drop);
    };
  });

  return (
    <div class={`drop-zones ${isOver ? "is-over" : ""}`}>
      {inputs.map((input) => (
        <DropZone
          key={input.name}
          input={input}
          isNamed={inputs.length > 1}
          chosen={files.filter(({ field }) => field === input.name)}
          isDisabled={isDisabled}
          onFiles={(given) => put(input, given)}
        />
      ))}
      {sample && files.length === 0 && (
        <SamplePhoto src={sample} isDisabled={isDisabled} onFile={(file) => put(inputs[0]!, [file])} />
      )}
    </div>
  );
}

function DropZone(props: {
  input: InputOfModel;
  isNamed: boolean;
  chosen: readonly Chosen[];
  isDisabled: boolean;
  onFiles: (files: File[]) => void;
}) {
  const { input, isNamed, chosen, isDisabled, onFiles } = props;
  const kind = kindOf(input);
  const sound = chosen.find(({ file }) => file.type.startsWith("audio/"));
  return (
    <div class={`drop-zone ${chosen.length > 0 ? "is-filled" : ""}`}>
      <label
        onDrop={(event) => {
          const given = [...(event.dataTransfer?.files ?? [])];
          if (given.length === 0 || isDisabled) return;
          event.preventDefault();
          onFiles(given);
        }}
      >
        <input
          type="file"
          accept={acceptOf(input)}
          multiple={input.multiple}
          disabled={isDisabled}
          onChange={(event) => {
            onFiles([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        {isNamed && (
          <strong>
            {input.name}
            {!input.required && <span class="quiet"> (optional)</span>}
          </strong>
        )}
        {chosen.length > 0 ? (
          <span>
            {chosen.map(({ file }) => file.name).join(", ")}{" "}
            <span class="quiet">– drop or choose another</span>
          </span>
        ) : (
          <span>
            <span class="drop-main">Drop {kind} here</span>
            <span class="quiet"> or choose, or paste</span>
          </span>
        )}
      </label>
      {sound && <audio controls src={sound.url} />}
    </div>
  );
}

function kindOf({ media_types, multiple }: InputOfModel): string {
  if (media_types.every((type) => type.startsWith("image/"))) return multiple ? "pictures" : "a picture";
  return media_types.every((type) => type.startsWith("audio/")) ? "a sound" : "a file";
}

function SamplePhoto({
  src,
  isDisabled,
  onFile,
}: {
  src: string;
  isDisabled: boolean;
  onFile: (file: File) => void;
}) {
  const [isThere, setThere] = useState(true);
  const load = useAction(async () => {
    const answer = await fetch(src);
    onFile(new File([await answer.blob()], "sample.jpg", { type: "image/jpeg" }));
  });
  if (!isThere) return null;
  return (
    <button type="button" class="sample" disabled={isDisabled || load.isBusy} onClick={() => load.run()}>
      <img src={src} alt="" onError={() => setThere(false)} />
      <span>Try the sample photo</span>
    </button>
  );
}

function SettingFields(props: {
  model: Model;
  settings: Settings;
  form: InputForm;
  onChange: (settings: Settings) => void;
}) {
  const { model, settings, form, onChange } = props;
  const hasThreshold = form === "files" && takesPictures(model) && model.embeds !== "picture";
  const hasPrompt = needsPrompt(model);
  const { threshold } = settings;
  return (
    <div class="settings">
      {hasPrompt && (
        <label class="field">
          <span>What to look for, one prompt a line</span>
          <textarea
            rows={3}
            value={settings.prompts}
            placeholder={"a photo of a cat\na photo of a dog"}
            onInput={(event) => onChange({ ...settings, prompts: event.currentTarget.value })}
          />
        </label>
      )}
      {hasThreshold && (
        <div class="row">
          <label class="slider">
            <span>Threshold</span>
            <input
              type="range"
              min="0"
              max="1"
              step="0.01"
              value={threshold ?? 0.5}
              class={threshold === undefined ? "is-unset" : ""}
              onInput={(event) => onChange({ ...settings, threshold: event.currentTarget.valueAsNumber })}
            />
            <output>{threshold === undefined ? "the model's own" : threshold.toFixed(2)}</output>
          </label>
          {threshold !== undefined && (
            <button
              type="button"
              class="small"
              onClick={() => onChange({ ...settings, threshold: undefined })}
            >
              The model's own
            </button>
          )}
        </div>
      )}
      {(form === "files" || form === "text") && (
        <KeysField value={settings.more} onValue={(more) => onChange({ ...settings, more })} />
      )}
    </div>
  );
}
