// Two runs side by side.
const OUTCOMES = { different: "Different", failed_in_one: "Failed in one", failed_in_both: "Failed in both", only_in_first: "Only in the first", only_in_second: "Only in the second", same: "Same" }

function Compare({ hint }) {
  const [found, setFound] = useState(null)
  const [outcome, setOutcome] = useState("")
  const [selected, select] = useState(null)
  const [pair, setPair] = useState(null)
  const asked = useRef(0)
  useEffect(() => {
    let timer
    const ask = () => source.comparison().then((reply) => (reply.is_complete ? setFound(reply) : (timer = setTimeout(ask, 500))), (error) => setFound({ error: String(error.message) }))
    ask()
    return () => clearTimeout(timer)
  }, [])
  const load = useCallback((start, size) => source.pairs(outcome, start, size), [outcome])
  const open = async (index) => {
    const number = ++asked.current
    select(index)
    const row = (await source.pairs(outcome, index, 1)).rows[0]
    if (!row) return
    const sides = await Promise.all([["first", row.first], ["second", row.second]].map(([side, place]) => (place == null ? null : source.item(place, side))))
    if (number === asked.current) setPair({ row, sides })
  }
  if (!found) return html`<p class="empty" role="status">Reading both runs…</p>`
  if (found.error) return html`<p class="empty" role="alert">${found.error}</p>`
  const { first, second, agreement, outcomes } = found.figures
  const line = (name, get) => html`<tr><th scope="row">${name}</th><td class="number">${get(first)}</td><td class="number">${get(second)}</td></tr>`
  const categories = Object.keys({ ...first.errors, ...second.errors })
  return html`<div class="compare ${pair ? "open" : ""}"><div class="panel">
    <div class="beside">
      <section><h3>Side by side</h3><table><thead><tr><th></th><th scope="col" class="number">${first.name}</th><th scope="col" class="number">${second.name}</th></tr></thead><tbody>
        ${line("items", (one) => count(one.items))}${line("succeeded", (one) => count(one.succeeded))}${line("failed", (one) => count(one.failed))}
        ${line("retried", (one) => count(one.retried))}${line("latency, p50", (one) => duration(one.latency.p50))}${line("latency, p95", (one) => duration(one.latency.p95))}
        ${line("input tokens", (one) => count(one.tokens.input_tokens))}${line("cached", (one) => count(one.tokens.cached_input_tokens))}
        ${line("output tokens", (one) => count(one.tokens.output_tokens))}${line("cost", (one) => money(one.cost))}
        ${categories.map((name) => line(`failed: ${name}`, (one) => count(one.errors[name])))}
      </tbody></table></section>
      <section><h3>Agreement</h3>
        <p>${agreement.share == null ? "No item has an answer in both runs." : html`<b>${percent(agreement.same, agreement.compared)}</b> of ${count(agreement.compared)} answers are the same.`}</p>
        <table><tbody>${Object.entries(agreement.fields).map(([name, one]) => html`<tr><th scope="row">${name}</th>
          <td><div class="meter" role="img" aria-label=${percent(one.same, one.compared)}><span style=${{ width: `${(one.share ?? 0) * 100}%` }}></span></div></td>
          <td class="number">${percent(one.same, one.compared)}</td></tr>`)}</tbody></table></section>
    </div></div>
    <div class="chips" role="group" aria-label="Outcome"><button aria-pressed=${outcome === ""} onClick=${() => { setOutcome(""); select(null) }}>All</button>
      ${Object.entries(OUTCOMES).filter(([name]) => outcomes[name]).map(([name, text]) => html`<button aria-pressed=${outcome === name} onClick=${() => { setOutcome(name); select(null) }}>${text} <span class="dim">${count(outcomes[name])}</span></button>`)}</div>
    <div class="work"><${VirtualList} label="Pairs" of=${`pairs ${outcome}`} version=${0} load=${load} selected=${selected} onSelect=${open} empty="No such items."
      describe=${(row) => `${row.id}, ${words(row.outcome)}`}
      row=${(row) => html`<span class="id">${row.id}</span><span class="tag">${words(row.outcome)}${row.fields ? `: ${row.fields}` : ""}</span><span class="preview">${row.first_answer ?? "–"}</span><span class="preview">${row.second_answer ?? "–"}</span>`} />
    ${pair && html`<div class="details two" aria-label="Both items"><button class="close" onClick=${() => setPair(null)} aria-label="Close the items">×</button>
      ${pair.sides.map((item, at) => html`<section><p class="dim">${at ? second.name : first.name}</p>${item ? html`<${ItemView} item=${item} hint=${hint} />` : html`<p class="dim">It is not in this run.</p>`}</section>`)}</div>`}</div>
  </div>`
}
