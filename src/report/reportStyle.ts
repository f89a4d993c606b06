/** The style of a report: light and dark, on paper, on a phone. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #fff; --text: #1b2430; --dim: #5b6778; --line: #dfe4ea;
  --good: #2f855a; --bad: #d64545; --mixed: #b7791f; --mark: #2b6cb0;
  --queue: #cbd5e0; --read: #4fc3f7; --preprocess: #9f7aea; --infer: #2b6cb0; --postprocess: #38b2ac;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11161d; --card: #1a212b; --text: #e6ebf2; --dim: #97a3b4; --line: #2c3643;
    --good: #48bb78; --bad: #fc8181; --mixed: #ecc94b; --mark: #63b3ed;
    --queue: #4a5568; --read: #4fc3f7; --preprocess: #b794f4; --infer: #63b3ed; --postprocess: #4fd1c5;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; padding-bottom: 8px; }
header h1 { margin: 2px 0 4px; font-size: clamp(24px, 4vw, 38px); line-height: 1.2; letter-spacing: -0.01em; }
header.good h1 { color: var(--good); } header.bad h1 { color: var(--bad); } header.mixed h1 { color: var(--mixed); }
.what, .when { margin: 0; color: var(--dim); }
footer { color: var(--dim); padding-top: 8px; padding-bottom: 40px; font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px 20px; margin: 16px 0; min-width: 0; }
section.failures { border-left: 5px solid var(--bad); }
h2 { margin: 0 0 8px; font-size: 17px; }
.columns { columns: 2 440px; column-gap: 16px; margin: 16px 0; }
.columns section { margin: 0 0 16px; break-inside: avoid; }
.note { color: var(--dim); margin: 4px 0 8px; font-size: 13px; }
.path { overflow-wrap: anywhere; }
code { font: 12.5px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }
.tiles div { flex: 1 1 150px; display: flex; flex-direction: column-reverse; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.tiles dt { color: var(--dim); font-size: 13px; line-height: 1.3; } .tiles dd { margin: 0; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { border-top: 1px solid var(--line); padding: 8px 0; } details:first-of-type { border-top: 0; }
summary { cursor: pointer; } summary code { color: var(--dim); } .reason { color: var(--dim); }
details ul { margin: 6px 0 2px; padding-left: 22px; }
svg.plot { display: block; width: 100%; height: auto; } svg.plot text { fill: var(--dim); font-size: 12px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .good { fill: var(--mark); } svg .bad { fill: var(--bad); } svg .mark { fill: var(--mark); }
svg.stages { border-radius: 5px; margin: 6px 0 10px; }
.stage-queue { fill: var(--queue); background: var(--queue); } .stage-read { fill: var(--read); background: var(--read); }
.stage-preprocess { fill: var(--preprocess); background: var(--preprocess); } .stage-infer { fill: var(--infer); background: var(--infer); }
.stage-postprocess { fill: var(--postprocess); background: var(--postprocess); }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; } .key.bad { background: var(--bad); margin-right: 3px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 500; } td, th { padding: 4px 0 4px 12px; border-top: 1px solid var(--line); } td:first-child, th:first-child { padding-left: 0; }
thead td, thead th { color: var(--dim); font-size: 12.5px; border-top: 0; font-weight: 400; }
.numbers td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.labels td.bar { width: 40%; } .bar svg { display: block; width: 100%; height: 12px; }
.settings th { width: 190px; color: var(--dim); vertical-align: top; font-weight: 400; } .settings td { overflow-wrap: anywhere; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px; margin-top: 10px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; display: flex; flex-direction: column; }
figure img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #0b0f14; }
figure .none { aspect-ratio: 4 / 3; display: grid; place-items: center; text-align: center; padding: 12px; color: var(--dim); background: var(--ground); font-size: 12.5px; overflow-wrap: anywhere; }
figcaption { padding: 8px 10px 10px; font-size: 13px; min-width: 0; } figcaption > .path { display: block; }
.chips { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 12px; } .chips .key { margin-right: 5px; }
.error { color: var(--bad); margin: 4px 0 0; overflow-wrap: anywhere; } figcaption .note { margin: 4px 0 0; }
@media (max-width: 600px) { header, main, footer { padding-left: 14px; padding-right: 14px; } .gallery { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); } section { padding: 14px; } .labels td.bar { width: 25%; } .settings th { width: 110px; } table { font-size: 13px; } td, th { padding-left: 7px; } .stages + table td:nth-of-type(3) { display: none; } svg.plot text { font-size: 20px; } }
@media print { body { background: #fff; } section, figure { break-inside: avoid; } }
`;
