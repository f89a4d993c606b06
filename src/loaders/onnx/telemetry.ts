/**
 * onnxruntime reports to Microsoft from 1.30 on, and writes files into the folder for temporary ones, unless this is set
 * before it is loaded. Engines in Python get it, too. Whoever wants the reports sets the variable to 0.
 */
process.env["ORT_DISABLE_TELEMETRY"] ??= "1";
