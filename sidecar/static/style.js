import { STATES, colours } from "./states.js";

const LIGHT = `
  --paper:#fbfaf8; --panel:#ffffff; --ink:#1f1d1a; --muted:#67625a; --line:#e6e2db; --hover:#f6f3ee; --track:#ebe7e0;
  --warning:#92400e; --bad:#be123c; --good:#047857; --shade:rgb(40 34 24 / .28); --default-brand:#26231f; color-scheme:light;
  ${colours("light")}`;
const DARK = `
  --paper:#171614; --panel:#1e1d1a; --ink:#ece9e3; --muted:#a59f94; --line:#32302b; --hover:#262420; --track:#35322d;
  --warning:#fbbf24; --bad:#fb7185; --good:#34d399; --shade:rgb(0 0 0 / .6); --default-brand:#ece9e3; color-scheme:dark;
  ${colours("dark")}`;

const THEME = `
:host { ${LIGHT} }
@media (prefers-color-scheme: dark) { :host { ${DARK} } }
:host([theme=light]) { ${LIGHT} }
:host([theme=dark]) { ${DARK} }
:host {
  --brand: var(--queue-brand, var(--default-brand));
  --mono: var(--queue-mono, ui-monospace, Menlo, Consolas, monospace);
  color: var(--ink);
  font: 14px/1.4 var(--queue-font, Inter, system-ui, sans-serif);
  font-variant-numeric: tabular-nums;
  text-align: start;
}
*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }
button, input, select { font: inherit; color: inherit; letter-spacing: inherit; }
button { background: none; border: 0; padding: 0; cursor: pointer; text-align: start; }
:focus { outline: none; }
:focus-visible { outline: 2px solid var(--brand); outline-offset: 2px; border-radius: 4px; }
h1, h2, h3, h4, p, dl, dd, ul, ol, figure, pre { margin: 0; padding: 0; font: inherit; }
ul, ol { list-style: none; }
code, pre, kbd { font-family: var(--mono); font-size: .86em; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; color: var(--muted); font-size: 11px; line-height: 16px; }
.icon { fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linecap: round; stroke-linejoin: round; display: block; flex: none; }
.quiet { color: var(--muted); }
.offscreen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.spring { flex: 1; }
.text-button { text-decoration: underline; text-decoration-color: var(--line); text-underline-offset: 3px; }
.text-button:hover { text-decoration-color: currentColor; }
.brand { display: inline-flex; gap: 2px; width: 20px; flex: none; }
.brand i { height: 6px; border-radius: 2px; background: var(--brand); flex: 3; }
.brand i + i { flex: 2; opacity: .55; }
.brand i + i + i { flex: 1; opacity: .28; }
.state-icon, .state-word { color: var(--state, var(--muted)); }
`;

const STATE_COLOURS = Object.keys(STATES).map((name) => `[data-status="${name}"] { --state: var(--state-${name}); }`).join("\n");

const VIEWER = `
:host(queue-viewer) { display: contents; }
:host(queue-viewer[inline]) { display: block; height: 640px; min-height: 0; }
.viewer { container: viewer / inline-size; display: flex; flex-direction: column; height: 100%; background: var(--paper); overflow: hidden; position: relative; }
:host([inline]) .viewer { border: 1px solid var(--line); border-radius: 8px; }
:host([page]) .viewer { border: 0; border-radius: 0; }
dialog { border: 0; padding: 0; margin: auto; width: min(1120px, 100vw - 48px); height: min(820px, 100dvh - 48px); max-width: none; max-height: none; border-radius: 8px; background: var(--paper); color: inherit; overflow: hidden; box-shadow: 0 24px 64px rgb(0 0 0 / .28); }
dialog::backdrop { background: var(--shade); }
.viewer:focus-visible { outline: none; }

.top { display: flex; align-items: center; gap: 10px; padding: 12px 20px 10px; flex: none; }
.label { font-size: 15px; font-weight: 650; letter-spacing: -.01em; white-space: nowrap; }
.conn { display: inline-flex; align-items: center; gap: 6px; font-size: 12.5px; color: var(--muted); margin-inline-start: 4px; white-space: nowrap; min-width: 0; }
.conn-word { color: var(--ink); font-weight: 550; }
.conn-rest { overflow: hidden; text-overflow: ellipsis; }
.dot { width: 8px; height: 8px; border-radius: 50%; background: var(--muted); flex: none; }
.conn[data-state=live] .dot { background: var(--good); }
.conn[data-state=connecting] .dot { background: none; border: 2px solid var(--warning); border-inline-end-color: transparent; animation: turn 1s linear infinite; width: 10px; height: 10px; }
.conn[data-state=stale] .dot { background: var(--warning); border-radius: 2px; }
.conn[data-state=closed] .dot { background: var(--bad); border-radius: 2px; }
.conn[data-state=connecting] .conn-word, .conn[data-state=stale] .conn-word { color: var(--warning); }
.conn[data-state=closed] .conn-word { color: var(--bad); }
.conn[data-state=paused] .dot { background: none; border-inline: 3px solid var(--ink); border-radius: 0; }
@keyframes turn { to { transform: rotate(1turn); } }
.tool { display: inline-flex; align-items: center; gap: 6px; height: 30px; padding: 0 10px; border-radius: 6px; border: 1px solid var(--line); background: var(--panel); font-size: 13px; }
.tool:hover { background: var(--hover); }
.tool[aria-pressed=true] { border-color: var(--brand); }
.tool.close { padding: 0 7px; }

.figures { display: grid; grid-template-columns: 1.7fr repeat(5, 1fr); margin: 0 20px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; flex: none; }
.figure { position: relative; height: 62px; padding: 9px 14px 0; border-inline-start: 1px solid var(--line); min-width: 0; display: flex; flex-direction: column; }
.figure:first-child { border: 0; }
.figure dt { font-size: 12px; line-height: 16px; color: var(--muted); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.figure .value { font-size: 21px; line-height: 28px; font-weight: 600; letter-spacing: -.015em; white-space: nowrap; }
.figure .value[data-some] { color: var(--state-failed); }
.figure .all { position: absolute; inset-inline: 98px 14px; inset-block-start: 36px; }
[data-old] .figures .value, [data-old] .side .number { color: var(--muted); font-weight: 500; }
[data-old] .figures { border-style: dashed; }
.segments { display: flex; gap: 1px; height: 6px; border-radius: 3px; overflow: hidden; background: var(--track); }
.segment { background: var(--state); min-width: 2px; flex: 0 1 0; }
.segment[data-status=pending] { opacity: .5; }
.queues:empty::after, .workers:empty::after { content: "–"; color: var(--muted); font-size: 13px; }
[data-connection=live] :is(.queues, .workers):empty::after { content: "None yet"; }
.side[data-unknown] :is(.queues, .workers):empty::after { content: "Not shown to you"; }

.main { display: grid; grid-template-columns: minmax(0, 1fr) 268px; gap: 20px; flex: 1; min-height: 0; padding: 14px 20px 0; }
.list { display: flex; flex-direction: column; min-height: 0; min-width: 0; }
.bar-row { display: flex; flex-wrap: wrap; align-items: end; justify-content: space-between; gap: 8px 16px; padding-bottom: 10px; flex: none; }
.tabs { display: flex; gap: 2px; }
.tab { padding: 5px 10px; border-radius: 6px; color: var(--muted); font-size: 13.5px; white-space: nowrap; }
.tab:hover { color: var(--ink); }
.tab[aria-selected=true] { background: color-mix(in srgb, var(--brand) 9%, transparent); color: var(--ink); font-weight: 600; }
.tab-count:not(:empty) { margin-inline-start: 6px; color: var(--muted); font-weight: 450; }
.side-tab { display: none; }
.filters { display: flex; flex-wrap: wrap; gap: 6px; flex: 1 1 470px; justify-content: flex-end; }
.search { display: flex; align-items: center; gap: 6px; height: 30px; padding: 0 8px; border: 1px solid var(--line); border-radius: 6px; background: var(--panel); color: var(--muted); flex: 0 1 250px; min-width: 104px; }
.search:focus-within { border-color: var(--brand); }
.search input { border: 0; background: none; outline: 0; width: 100%; min-width: 0; color: var(--ink); font-size: 13px; }
.search input::placeholder { color: var(--muted); opacity: 1; }
.search input::-webkit-search-cancel-button { appearance: none; }
.search:focus-within kbd { visibility: hidden; }
.filters select { height: 30px; border: 1px solid var(--line); border-radius: 6px; background: var(--panel); padding: 0 6px; font-size: 13px; max-width: 116px; flex: none; text-overflow: ellipsis; }

.list-body { position: relative; flex: 1; min-height: 0; border: 1px solid var(--line); border-bottom: 0; border-radius: 8px 8px 0 0; background: var(--panel); overflow: hidden; }
.scroller { height: 100%; overflow-y: auto; overflow-anchor: none; scrollbar-gutter: stable; scrollbar-width: thin; scrollbar-color: var(--track) transparent; }
.tasks { position: relative; }
.task { position: absolute; inset-inline: 0; top: 0; contain: layout style; border-bottom: 1px solid var(--line); background: var(--panel); }
.task:has(> .head:focus-visible) { z-index: 1; }
.head { display: grid; grid-template-columns: 28px minmax(0, 1fr) minmax(0, 172px) 44px 72px 14px; align-items: center; column-gap: 12px; width: 100%; height: 59px; padding: 0 12px 0 14px; }
.head:hover { background: var(--hover); }
.head:focus-visible { outline-offset: -2px; border-radius: 6px; }
.state-icon { display: grid; place-items: center; width: 28px; height: 28px; border-radius: 6px; background: color-mix(in srgb, var(--state) 10%, transparent); }
.what { min-width: 0; }
.title, .says { display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; line-height: 20px; }
.name { font-weight: 600; }
.module { color: var(--muted); }
.says { font-size: 12.5px; line-height: 18px; }
.state-word { font-weight: 550; }
.says .percent:not(:empty)::before, .says .message:not(:empty)::before { content: "·"; margin: 0 6px; color: var(--muted); }
.says .message { color: var(--muted); }
[data-status=failed] > .head .message, [data-status=failed] .says .message { color: var(--ink); }
.where { min-width: 0; font-size: 12.5px; color: var(--muted); }
.where span { display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; line-height: 18px; }
.where .queue { color: var(--ink); }
.attempt { font-size: 12.5px; color: var(--muted); text-align: end; white-space: nowrap; }
.clock { text-align: end; font-size: 14px; white-space: nowrap; }
.chevron { color: var(--muted); transition: transform .12s; }
.head[aria-expanded=true] .chevron { transform: rotate(90deg); }
.track { position: absolute; inset-inline: 0; top: 57px; height: 2px; background: color-mix(in srgb, var(--state) 14%, transparent); overflow: hidden; }
.fill { display: block; height: 100%; background: var(--state); transform-origin: left; transform: scaleX(0); transition: transform .25s ease-out; }
.task[data-left] .name, .task[data-left] .clock, .task[data-left] .where .queue { color: var(--muted); font-weight: 450; }
.task[data-left] .state-icon { background: none; }
.task[data-status=lost] .clock { text-decoration: line-through; text-decoration-color: color-mix(in srgb, var(--state) 70%, transparent); text-decoration-thickness: 1px; }

.details { background: color-mix(in srgb, var(--hover) 55%, var(--panel)); border-top: 1px solid var(--line); }
.details-inner { padding: 14px 20px 16px 54px; display: grid; gap: 14px; min-height: 170px; align-content: start; }
.more { display: grid; gap: 8px; justify-items: start; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 8px 20px; width: 100%; }
.fact dt, section > h4 { font-size: 12px; color: var(--muted); }
.fact dd { overflow-wrap: anywhere; font-size: 13px; }
.parameters { display: grid; gap: 12px; }
section > h4 { margin-bottom: 4px; }
.value:is(pre) { font-size: 12.5px; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 280px; overflow: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; font-weight: 400; letter-spacing: 0; }
.value.error { color: var(--state-failed); border-color: color-mix(in srgb, var(--state-failed) 40%, var(--line)); }
.long { display: grid; gap: 4px; justify-items: start; }
.long pre { width: 100%; }
.id { display: inline-flex; align-items: center; gap: 4px; min-width: 0; }
.id code { overflow-wrap: anywhere; }
.copy { color: var(--muted); padding: 3px; border-radius: 4px; flex: none; }
.copy:hover { color: var(--ink); background: var(--hover); }

.fresh { position: absolute; z-index: 3; inset-block-start: 8px; inset-inline-start: 50%; transform: translateX(-50%); background: var(--brand); color: var(--paper); border-radius: 999px; padding: 3px 12px; font-size: 12.5px; font-weight: 600; box-shadow: 0 2px 8px rgb(0 0 0 / .18); }
.sign-in { max-width: 420px; margin: 48px auto; display: grid; gap: 14px; }
.sign-in form { display: flex; gap: 8px; }
.sign-in input { flex: 1; min-width: 0; padding: 0 10px; border: 1px solid var(--line); border-radius: 6px; background: var(--panel); }
.wrong { color: var(--bad); }
.empty { padding: 56px 20px 24px; text-align: center; }
.empty-title { font-size: 15px; }
.note { padding: 12px 14px; font-size: 12.5px; }
.note:empty { display: none; }
.list-all { margin: -6px 14px 14px; }

.side { overflow-y: auto; min-height: 0; padding-bottom: 20px; display: grid; gap: 20px; align-content: start; scrollbar-width: thin; scrollbar-color: var(--track) transparent; }
.side h3 { font-size: 12px; color: var(--muted); margin-bottom: 8px; }
.sparks { display: grid; gap: 12px; }
.sparks figcaption { display: flex; justify-content: space-between; font-size: 12px; color: var(--muted); margin-bottom: 4px; }
.spark-figure { color: var(--ink); }
.spark { display: block; width: 100%; height: 36px; border-bottom: 1px solid var(--line); overflow: visible; }
.spark-line { fill: none; stroke: var(--muted); stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
.spark-area { fill: var(--track); opacity: .55; }
.spark rect.ended { fill: var(--state-completed); opacity: .75; }
.spark rect.failed { fill: var(--state-failed); }
.queues, .workers { display: grid; gap: 12px; }
.line { display: flex; justify-content: space-between; gap: 12px; align-items: baseline; }
.line .name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: 13px; font-weight: 550; }
.number { font-size: 13px; flex: none; }
.queue .segments { margin: 5px 0 3px; background: linear-gradient(var(--track), var(--track)); }
.queue .segments::after { content: ""; flex: 0 0 calc((1 - var(--share, 0)) * 100%); }
.who { font-size: 12px; color: var(--muted); }
.who:empty { display: none; }
.who[data-warning] { color: var(--warning); font-weight: 600; }
.slots { display: flex; gap: 3px; margin: 5px 0 3px; }
.slot { flex: 1; max-width: 26px; height: 6px; border-radius: 2px; background: var(--track); overflow: hidden; }
.slot:only-child { max-width: none; }
.used { display: block; height: 100%; background: var(--muted); transform-origin: left; transform: scaleX(0); }
.worker[data-status=lost] .who { color: var(--state-lost); font-weight: 550; }
.worker[data-status=offline] .name, .worker[data-status=lost] .name { color: var(--muted); }

.page { grid-column: 1 / -1; overflow-y: auto; min-height: 0; background: var(--panel); border: 1px solid var(--line); border-bottom: 0; border-radius: 8px 8px 0 0; }
[data-page] .list, [data-page] .side { display: none; }
.task-page { max-width: 780px; padding: 16px 24px 48px; display: grid; gap: 14px; }
.back { display: inline-flex; gap: 4px; align-items: center; color: var(--muted); justify-self: start; margin-inline-start: -4px; padding: 2px 6px 2px 2px; border-radius: 4px; }
.back:hover { color: var(--ink); }
.page-head { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: start; justify-content: space-between; }
.page-name { min-width: 0; }
.page-head h2 { font-size: 20px; font-weight: 650; letter-spacing: -.015em; overflow-wrap: anywhere; }
.page-head h2 .module { font-weight: 400; }
.page-state { display: flex; align-items: center; gap: 8px; }
.page-clock { font-size: 18px; font-weight: 600; }
.page-message { color: var(--muted); }
.page-message:empty { display: none; }
.page-body { display: grid; gap: 22px; }
.page-body section > h4 { margin-bottom: 8px; }
.timeline li { position: relative; display: grid; grid-template-columns: 28px 110px 76px 110px minmax(0, 1fr); gap: 0 10px; align-items: center; padding-block: 6px; font-size: 13px; }
.timeline li + li::before { content: ""; position: absolute; inset-inline-start: 13.5px; top: -6px; height: 12px; width: 1px; background: var(--line); }
.timeline li:has(.attempt-head)::before { display: none; }
.attempt-head { grid-column: 1 / -1; font-weight: 600; padding: 8px 0 6px; }
.timeline li:first-child .attempt-head { padding-top: 0; }
.timeline .gap { color: var(--muted); text-align: end; }
.timeline time { color: var(--muted); }
.timeline .worker { color: var(--muted); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.relatives li { display: flex; gap: 10px; align-items: baseline; min-height: 26px; }
.kin { width: 56px; color: var(--muted); }

@container viewer (width < 900px) {
  .main { grid-template-columns: minmax(0, 1fr) 220px; gap: 16px; }
  .head { grid-template-columns: 28px minmax(0, 1fr) minmax(0, 110px) 44px 64px 14px; }
  .figures { grid-template-columns: 1.4fr repeat(5, 1fr); }
  .figure { padding-inline: 10px; }
  .figure .all { inset-inline: 74px 10px; }
  .filters { justify-content: flex-start; }
}
@container viewer (width < 640px) {
  .top { padding: 10px 12px 8px; }
  .tool kbd, .search kbd { display: none; }
  .figures { grid-template-columns: repeat(3, 1fr); margin: 0 12px; }
  .figure { height: 56px; padding-top: 6px; }
  .figure:nth-child(4) { border-inline-start: 0; }
  .figure:nth-child(n + 4) { border-top: 1px solid var(--line); }
  .figure .value { font-size: 19px; }
  .figure .all { inset-block: auto -1px; inset-inline: 0; z-index: 1; }
  .figure .segments { height: 3px; border-radius: 0; }
  .scroller { scrollbar-gutter: auto; }
  .main { grid-template-columns: minmax(0, 1fr); padding: 10px 0 0; }
  .bar-row { padding: 0 12px 8px; }
  .tabs { width: 100%; overflow-x: auto; scrollbar-width: none; gap: 0; }
  .tab { padding: 5px 9px; }
  .side-tab { display: block; }
  .filters { flex-basis: 100%; }
  .search { flex: 1 1 100%; height: 34px; }
  .search input { font-size: 16px; }
  .filters select { flex: 1 1 0; min-width: 0; max-width: none; height: 34px; }
  .list-body, .page { border-inline: 0; border-radius: 0; }
  .side { display: none; padding: 4px 16px 20px; }
  [data-side] .side { display: grid; }
  [data-side] .list-body, [data-side] .filters { display: none; }
  [data-side] .main, .viewer[data-side] .main { grid-template-rows: auto 1fr; }
  .viewer[data-side] .tab[aria-selected=true]:not(.side-tab) { background: none; font-weight: inherit; color: var(--muted); }
  .head { grid-template-columns: 28px minmax(0, 1fr) auto; padding: 0 12px; }
  .where, .attempt, .chevron { display: none; }
  .details-inner { padding-inline: 12px; }
  .facts { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
  .task-page { padding: 12px 14px 40px; }
  .timeline li { grid-template-columns: 28px 1fr auto; padding: 4px 0; }
  .timeline time { grid-column: 2; }
  .timeline .worker { grid-column: 3; text-align: end; }
}
@media (max-width: 640px) {
  dialog { width: 100vw; height: 100dvh; border-radius: 0; margin: 0; }
}
`;

const OTHERS = `
:host(queue-button) { display: inline-block; }
.queue-button { display: inline-flex; align-items: center; gap: 9px; height: 34px; padding: 0 7px 0 12px; border-radius: 8px; border: 1px solid var(--line); background: var(--panel); color: var(--ink); font-weight: 550; }
.queue-button:hover { background: var(--hover); }
.badge { min-width: 24px; height: 22px; padding: 0 7px; border-radius: 6px; background: color-mix(in srgb, var(--brand) 10%, transparent); font-size: 13px; font-weight: 600; line-height: 22px; text-align: center; }
.queue-button[data-connection=connecting] .badge, .queue-button[data-connection=stale] .badge, .queue-button[data-connection=closed] .badge { color: var(--muted); background: none; outline: 1px dashed var(--muted); outline-offset: -1px; }
:host(task-progress) { display: block; }
.task-progress { --state: var(--state-unknown); }
.task-progress .line { display: flex; align-items: center; gap: 8px; justify-content: flex-start; min-height: 28px; }
.task-progress .message { color: var(--muted); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; min-width: 0; }
.task-progress .bar { height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; margin-top: 6px; }
.task-progress[data-old] { opacity: .7; }
`;

const CALM = "@media (prefers-reduced-motion: reduce) { *, *::before, *::after { animation: none !important; transition: none !important; } }";

let made = null;

/** The style sheets, one for all elements; as constructed sheets they pass a `style-src` without `unsafe-inline`. */
export function sheets() {
  if (!made) {
    made = new CSSStyleSheet();
    made.replaceSync([THEME, STATE_COLOURS, VIEWER, OTHERS, CALM].join("\n"));
  }
  return [made];
}
