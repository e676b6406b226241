// One item: prompt next to answer, the conversation, its attempts over time.
function Text({ name, text, missing }) {
  return html`<section class="text" aria-label=${name}>
    <h3>${name}</h3>
    ${text
      ? html`<pre tabindex="0">${pretty(text.text)}${text.left_out > 0 && html`<em> … and ${count(text.left_out)} more characters</em>`}</pre>`
      : html`<p class="dim">${missing}</p>`}
  </section>`
}

// Objects are easier to read on several lines.
function pretty(text) {
  if (text.length > 100_000 || !/^\s*[{[]/.test(text)) return text
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}

function Turns({ turns }) {
  return html`<section aria-label="Conversation"><h3>Conversation</h3><ol class="turns">
    ${turns.map((turn) => html`<li class=${`turn ${turn.role === "assistant" ? "by-model" : ""}`}>
      <h4>${turn.name ? `${turn.role}: ${turn.name}` : turn.role}</h4>
      ${turn.text.text && html`<pre>${pretty(turn.text.text)}${turn.text.left_out > 0 && html`<em> … and ${count(turn.text.left_out)} more characters</em>`}</pre>`}
      ${turn.calls.map((call) => html`<pre class="call">${call.name}(${call.arguments.text})</pre>`)}
    </li>`)}
  </ol></section>`
}

function Attempts({ item }) {
  const attempts = item.attempts
  const begin = Math.min(...attempts.map((one) => one.start - one.waits.reduce((sum, wait) => sum + wait, 0)))
  const end = Math.max(...attempts.map((one) => one.start + one.seconds))
  const scale = 100 / Math.max(end - begin, 1e-9)
  const names = Object.keys(WAITS)
  const used = names.filter((_, at) => attempts.some((one) => one.waits[at] > 0))
  const bars = (one) => {
    let at = one.start - one.waits.reduce((sum, wait) => sum + wait, 0)
    const parts = one.waits.map((wait, place) => {
      const left = at
      at += wait
      return wait > 0 && html`<span class=${`bar ${names[place]}`} title=${`${WAITS[names[place]]}: ${duration(wait)}`}
        style=${{ left: `${(left - begin) * scale}%`, width: `${wait * scale}%` }}></span>`
    })
    return html`${parts}<span class=${`bar ${one.ok ? "request" : "bad"}`} title=${`request: ${duration(one.seconds)}`}
      style=${{ left: `${(one.start - begin) * scale}%`, width: `${one.seconds * scale}%` }}></span>`
  }
  const waited = (one) =>
    one.waits.map((wait, at) => wait > 0 && `${WAITS[names[at]]} ${duration(wait)}`).filter(Boolean).join(", ") || "none"
  return html`<section aria-label="Attempts"><h3>Attempts <span class="dim">over ${duration(end - begin)}</span></h3>
    <div class="scroll"><table class="attempts">
      <thead><tr><th scope="col">#</th><th scope="col" class="wide">time</th><th scope="col" class="number">request</th><th scope="col">waited for</th><th scope="col">outcome</th></tr></thead>
      <tbody>${attempts.map((one, at) => html`<tr>
        <td>${at + 1}</td><td><div class="track" aria-hidden="true">${bars(one)}</div></td>
        <td class="number">${duration(one.seconds)}</td><td>${waited(one)}</td>
        <td class=${one.ok ? "" : "failed"}>${one.ok ? "ok" : `${one.error ?? "failed"}${one.category ? ` (${one.category})` : ""}`}${one.message && html`<div class="dim message">${one.message}</div>`}</td></tr>`)}
      </tbody></table></div>
    <p class="legend">${used.map((name) => html`<span><i class=${`bar ${name}`}></i>${WAITS[name]}</span>`)}<span><i class="bar request"></i>request</span>
      ${attempts.some((one) => !one.ok) && html`<span><i class="bar bad"></i>failed request</span>`}</p>
  </section>`
}

const Facts = ({ facts }) => html`<dl class="facts">${facts.filter(([, value]) => value != null && value !== "")
  .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`

function ItemView({ item, hint, onClose, heading }) {
  if (!item) return html`<p class="dim">This item is not in the page.</p>`
  const more = Object.entries(item.metadata)
  return html`<article class="item" aria-label=${`Item ${item.id}`}>
    <header><h2 tabindex="-1" ref=${heading}>${item.id}</h2><span class=${`state s${item.state}`}>${STATES[item.state]}</span>
      ${item.category && html`<span class="tag">${item.category}</span>`}
      ${onClose && html`<button class="close" onClick=${onClose} aria-label="Close the item" title="Close (Esc)">×</button>`}</header>
    <${Facts} facts=${[
      ["model", item.model], ["lane", item.lane], ["finish", item.finish], ["reused", item.reused && `from the ${item.reused}`],
      ["cost", item.cost == null ? null : money(item.cost)],
      ...Object.entries(item.tokens).filter(([name]) => name !== "total_tokens").map(([name, value]) => [words(name), count(value)]),
      ["stored", moment(item.recorded_at)], ["run", item.run || null],
    ]} />
    <div class="pair">
      <${Text} name="Prompt" text=${item.prompt} missing=${hint} />
      <${Text} name=${item.state === 1 ? "Answer" : "Error"} text=${item.answer} />
    </div>
    ${item.turns.length > 0 && html`<${Turns} turns=${item.turns} />`}
    ${item.attempts.length > 0 && html`<${Attempts} item=${item} />`}
    ${more.length > 0 && html`<details><summary>Metadata</summary><${Facts} facts=${more.map(([name, value]) => [name, value.text ?? value])} /></details>`}
  </article>`
}
