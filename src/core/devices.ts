/** Every kind of device that an engine can run on: how it is named, how many engines it gets, what it needs. */

/** A row for each kind of device. */
interface DeviceKind {
  /** As the configuration names it. */
  pattern: RegExp;
  /** Examples for messages. */
  names: string;
  /** Whether its engines share the cores of the machine. */
  usesCores: boolean;
  /** onnxruntime's execution provider; undefined for the CPU's own. */
  provider(device: string): { name: "cpu" | "webgpu" } | { name: "cuda"; deviceId: number };
  /** What to do where it can't be used. */
  advice: string;
}

const KINDS: readonly DeviceKind[] = [
  {
    pattern: /^cpu$/,
    names: '"cpu"',
    usesCores: true,
    provider: () => ({ name: "cpu" }),
    advice: "",
  },
  {
    pattern: /^cuda(:\d+)?$/,
    names: '"cuda", "cuda:<number>"',
    usesCores: false,
    provider: (device) => ({ name: "cuda", deviceId: Number(device.split(":")[1] ?? 0) }),
    advice:
      "CUDA needs Linux on x64, an NVIDIA driver, CUDA 12, cuDNN 9 and onnxruntime's provider libraries, which are not in " +
      "the npm package: fetch them once with `ONNXRUNTIME_NODE_INSTALL=cuda12 node node_modules/onnxruntime-node/script/install.js`. " +
      'Or set device to "cpu".',
  },
  {
    pattern: /^webgpu$/,
    names: '"webgpu"',
    usesCores: false,
    provider: () => ({ name: "webgpu" }),
    advice: 'WebGPU needs a GPU with a Vulkan, Metal or Direct3D 12 driver. Or set device to "cpu".',
  },
];

/** Matches every name of a device. */
export const DEVICE = new RegExp(KINDS.map(({ pattern }) => `(?:${pattern.source})`).join("|"));
/** For the message where none matches. */
export const DEVICE_NAMES = KINDS.map(({ names }) => names)
  .join(", ")
  .replace(/, (?=[^,]*$)/, " or ");

function kindOf(device: string): DeviceKind {
  const kind = KINDS.find(({ pattern }) => pattern.test(device));
  if (!kind) throw new Error(`there is no device "${device}"; it must be ${DEVICE_NAMES}`);
  return kind;
}

/** The devices of a model's `device` setting, each with its number. */
export function devicesOf(setting: string | readonly string[]): string[] {
  return [setting].flat().map((device) => (device === "cuda" ? "cuda:0" : device));
}

/** Whether a device's engines share the cores of the machine: then `instances` defaults to the cores, else to 1. */
export function usesCores(device: string): boolean {
  return kindOf(device).usesCores;
}

/** onnxruntime's execution provider for a device. */
export function executionProvider(device: string): ReturnType<DeviceKind["provider"]> {
  return kindOf(device).provider(device);
}

/** What to do where a device was asked for and can't be used. */
export function deviceAdvice(device: string): string {
  return kindOf(device).advice;
}
