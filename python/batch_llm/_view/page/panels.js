// The run as a whole: figures, errors by kind, lanes, models and the cache.
function Figures({ figures, about, isComplete, onFilter }) {
  const answered = figures.items - figures.not_sent
  const cards = [
    ["items", count(figures.items), !isComplete && about.expected > figures.items ? `of ${count(about.expected)} read` : about.total ? `of ${count(about.total)}` : ""],
    ["succeeded", count(figures.succeeded), percent(figures.succeeded, answered)],
    ["failed", count(figures.failed), percent(figures.failed, answered), "failed"],
    ["retried", count(figures.retried), figures.retries ? `${count(figures.retries)} further attempts` : "", "retried"],
    ["truncated", count(figures.truncated), "", "truncated"],
    ["not sent", count(figures.not_sent), "", "not_sent"],
    ["latency, p50", duration(figures.p50), figures.p95 == null ? "" : `p95 ${duration(figures.p95)}, p99 ${duration(figures.p99)}`],
    ["input tokens", short(figures.input), figures.cached ? `${percent(figures.cached, figures.input)} from the cache` : ""],
    ["output tokens", short(figures.output), ""],
    ["cost", figures.without_cost && !figures.cost ? "unknown" : money(figures.cost), figures.without_cost && figures.cost ? `unknown for ${count(figures.without_cost)}` : ""],
  ].filter(([name, value]) => !(["truncated", "not sent"].includes(name) && value === "0"))
  return html`<ul class="figures" aria-label="Figures">${cards.map(([name, value, note, filter]) => html`<li class=${filter === "failed" && value !== "0" ? "has-failed" : ""}>
    ${filter && value !== "0"
      ? html`<button onClick=${() => onFilter(filter)} title=${`Show items: ${name}`}><span class="name">${name}</span><b>${value}</b><span class="dim">${note}</span></button>`
      : html`<div><span class="name">${name}</span><b>${value}</b><span class="dim">${note}</span></div>`}</li>`)}</ul>`
}

function Errors({ errors, onKind, onItem }) {
  if (!errors.length) return html`<p class="empty">Nothing has failed.</p>`
  return html`<div class="panel"><p class="dim">Failures with the same message, apart from numbers and quoted parts, are one kind.</p>
    <table class="errors"><thead><tr><th scope="col" class="number">Count</th><th scope="col">Category</th><th scope="col">Example</th><th scope="col">Items</th></tr></thead><tbody>
    ${errors.map((one) => html`<tr><td class="number"><b>${count(one.count)}</b></td><td><span class="tag">${one.category}</span></td><td class="example">${one.example}</td>
      <td>${one.items.map(([place, id]) => html`<button class="link" onClick=${() => onItem(place, one)}>${id}</button> `)}
      <button class="link" onClick=${() => onKind(one)}>show ${one.count === 1 ? "it" : `all ${count(one.count)}`}</button></td></tr>`)}
    </tbody></table></div>`
}

function Sums({ title, rows }) {
  if (!rows.some((one) => one.name)) return null
  return html`<section><h3>${title}</h3><div class="scroll"><table><thead><tr>
    ${["", "items", "failed", "mean time", "input", "cached", "written to the cache", "output", "cost"].map((name, at) => html`<th scope="col" class=${at ? "number" : ""}>${name}</th>`)}</tr></thead><tbody>
    ${rows.map((one) => html`<tr><th scope="row">${one.name ?? "not reported"}</th><td class="number">${count(one.items)}</td><td class="number">${count(one.failed)}</td>
      <td class="number">${duration(one.seconds)}</td><td class="number">${short(one.input ?? 0)}</td><td class="number">${short(one.cached ?? 0)} ${one.cached > 0 && html`<span class="dim">(${percent(one.cached, one.input)})</span>`}</td>
      <td class="number">${short(one.written ?? 0)}</td><td class="number">${short(one.output ?? 0)}</td><td class="number">${one.cost == null ? "unknown" : money(one.cost)}</td></tr>`)}
  </tbody></table></div></section>`
}

const Counts = ({ title, counts }) => {
  const all = Object.entries(counts)
  return all.length > 0 && html`<section><h3>${title}</h3><table><tbody>${all.map(([name, value]) => html`<tr><th scope="row">${name}</th><td class="number">${count(value)}</td></tr>`)}</tbody></table></section>`
}

function Run({ overview }) {
  const { about, lanes, models, finish, reused, categories } = overview
  return html`<div class="panel">
    ${about.summary && html`<section><h3>Summary</h3><table class="summary"><tbody>${about.summary.map(([name, text]) => html`<tr><th scope="row">${name}</th><td>${text}</td></tr>`)}</tbody></table></section>`}
    ${about.explanation && html`<section><h3>What limits the run</h3><pre>${about.explanation}</pre></section>`}
    <${Sums} title="Models and prompt cache" rows=${models} />
    <${Sums} title="Lanes" rows=${lanes} />
    <div class="beside">
      <${Counts} title="Finish reasons" counts=${finish} />
      <${Counts} title="Failures by category" counts=${categories} />
      <${Counts} title="Reused results" counts=${reused} />
      ${about.limits?.length > 0 && html`<section><h3>Limits</h3><table><tbody>${about.limits.map((one) => html`<tr><th scope="row">${one.measure}</th><td>${count(one.amount)} in ${duration(one.per)}</td><td>${one.learned ? "the provider's" : "configured"}</td></tr>`)}</tbody></table></section>`}
    </div>
    ${about.path && html`<section><h3>Store</h3><${Facts} facts=${[
      ["path", about.path], ["created", moment(about.created_at)], ["last record", moment(about.updated_at)], ["runs", about.runs],
      ["cost of all runs", about.spent == null ? "unknown" : money(about.spent)], ["failed attempts that were billed", about.failed_attempts || null],
      ["damaged records", about.damaged || null], ["unreadable records", about.unreadable || null],
    ]} /></section>`}
  </div>`
}
