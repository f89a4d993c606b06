/**
 * onnxruntime reports to Microsoft from 1.30 on, and writes files into the folder for temporary ones, unless this is set
 * before it is loaded. Whoever wants the reports sets the variable to 0.
 */
const SWITCH = "ORT_DISABLE_TELEMETRY";

/** For a process that is started. */
export const withoutTelemetry = { [SWITCH]: process.env[SWITCH] ?? "1" };

/** For this process, before it loads onnxruntime. */
export function disableTelemetry(): void {
  Object.assign(process.env, withoutTelemetry);
}
