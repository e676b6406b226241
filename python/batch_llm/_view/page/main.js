// The page: figures, tabs, the list of items with its filters, and one item beside it.
const HELP = [
  ["/", "search"], ["↑ ↓ or j k", "next and previous item"], ["Page up, Page down, Home, End", "further"], ["Enter", "go to the item"],
  ["Esc", "close the item, or clear the search"], ["1 to 5", "tabs"], ["Tab, then ← →", "read a chart"], ["t", "light or dark"], ["?", "this list"],
]

// What is shown is part of the address, so that it survives a reload and can be bookmarked.
function queryOfAddress() {
  const given = new URLSearchParams(location.hash.slice(1))
  const query = Object.fromEntries(Object.entries(EVERYTHING).map(([name, usual]) => [name, given.get(name) ?? usual]))
  if (!(query.only in FILTERS)) query.only = "all"
  if (!(query.order in ORDERS)) query.order = "place"
  if (!/^\d{0,15}$/.test(query.run)) query.run = ""
  return query
}

const initial = location.hash.slice(1)

function useTheme() {
  const [theme, setTheme] = useState(null)
  const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme
  }, [theme])
  return [isDark ? "dark" : "light", () => setTheme(isDark ? "light" : "dark")]
}

// What limits a run changes while nothing else does.
const bound = (overview) => overview.charts.map((one) => one.bound)

function useOverview() {
  const [overview, setOverview] = useState(null)
  const [problem, setProblem] = useState(null)
  useEffect(() => {
    let timer
    const ask = async () => {
      let pause = 2000
      try {
        const found = await source.overview()
        setOverview((before) => (before && before.version === found.version && JSON.stringify([before.about, bound(before)]) === JSON.stringify([found.about, bound(found)]) && before.is_complete === found.is_complete ? before : found))
        setProblem(found.error ?? null)
        if (!found.is_complete) pause = 1000
      } catch (error) {
        setProblem("The command that serves this page has ended, or does not answer.")
        pause = 5000
      }
      if (source.isLive) timer = setTimeout(ask, pause)
    }
    ask()
    return () => clearTimeout(timer)
  }, [])
  return [overview, problem]
}

function Toolbar({ query, change, categories, runs, total, search }) {
  const [text, setText] = useState(query.search)
  const timer = useRef(0)
  // Effects run late: what was typed meanwhile is newer than the search.
  useEffect(() => { timer.current || setText(query.search) }, [query.search])
  const find = (value) => {
    clearTimeout(timer.current)
    timer.current = 0
    change({ search: value })
  }
  const type = (value) => {
    setText(value)
    clearTimeout(timer.current)
    timer.current = setTimeout(() => find(value), 60)
  }
  return html`<div class="toolbar" role="search">
    <label class="search"><span class="hidden">Search prompts and answers</span>
      <input type="search" ref=${search} value=${text} placeholder="Search prompts and answers" maxlength="500"
        onInput=${(event) => type(event.currentTarget.value)} onKeyDown=${(event) => event.key === "Enter" && find(event.currentTarget.value)} /></label>
    <div class="chips" role="group" aria-label="Filter">${Object.entries(FILTERS).map(([name, label]) => html`<button aria-pressed=${query.only === name} onClick=${() => change({ only: name, category: "", kind: "" })}>${label}</button>`)}</div>
    ${Object.keys(categories).length > 0 && html`<select aria-label="Category of failures" value=${query.category} onChange=${(event) => change({ category: event.currentTarget.value, kind: "", ...(event.currentTarget.value && { only: "failed" }) })}>
      <option value="">any category</option>${Object.entries(categories).map(([name, number]) => html`<option value=${name}>${name} (${count(number)})</option>`)}</select>`}
    ${runs.length > 1 && html`<select aria-label="Run" value=${query.run} onChange=${(event) => change({ run: event.currentTarget.value })}>
      <option value="">any run</option>${runs.map(([name, number]) => html`<option value=${name}>run ${name} (${count(number)})</option>`)}</select>`}
    <label>Sort by <select value=${query.order} onChange=${(event) => change({ order: event.currentTarget.value, descending: ["place", "id"].includes(event.currentTarget.value) ? "" : "1" })}>
      ${Object.entries(ORDERS).map(([name, label]) => html`<option value=${name}>${label}</option>`)}</select></label>
    <button class="plain" aria-pressed=${query.descending === "1"} onClick=${() => change({ descending: query.descending ? "" : "1" })} title=${query.descending ? "Descending; click to reverse" : "Ascending; click to reverse"} aria-label="Descending">${query.descending ? "↓" : "↑"}</button>
    <span class="total" role="status">${total == null ? "" : `${count(total)} item${total === 1 ? "" : "s"}`}</span>
    ${query.kind && html`<button class="tag" onClick=${() => change({ kind: "" })} title="Show all kinds">${query.kind} ×</button>`}
  </div>`
}

const describe = (row) =>
  `${row.item_id}, ${STATES[row.state]}${row.category ? `, ${row.category}` : ""}, ${duration(row.seconds)}, ${row.retries} retries. ${row.prompt ?? ""} ${row.answer}`
const listed = (row) => html`<i class=${`dot s${row.state}`}></i><span class="id">${row.item_id}</span><span class="preview prompt">${row.prompt ?? ""}</span>
  <span class=${`preview answer ${row.state === 0 ? "failed" : ""}`}>${row.answer}</span>
  <span class="marks">${row.retries > 0 && html`<span class="tag" title=${`${row.retries} retr${row.retries === 1 ? "y" : "ies"}`}>↻ ${row.retries}</span>`}${row.truncated ? html`<span class="tag">truncated</span>` : ""}${row.reused && html`<span class="tag">reused</span>`}</span>
  <span class="number time">${duration(row.seconds)}</span><span class="number cost">${row.cost ? money(row.cost) : ""}</span>`

function App() {
  const [overview, problem] = useOverview()
  const [theme, turnTheme] = useTheme()
  const [tab, setTab] = useState("Items")
  const [query, setQuery] = useState(queryOfAddress)
  const [total, setTotal] = useState(null)
  const [selected, setSelected] = useState(null)
  const [item, setItem] = useState(undefined)
  const search = useRef(null), heading = useRef(null), help = useRef(null), asked = useRef(0)
  const key = JSON.stringify(query)

  const change = useCallback((parts) => {
    setQuery((before) => ({ ...before, ...parts }))
    setSelected(null)
  }, [])
  useEffect(() => {
    const kept = Object.entries(query).filter(([name, value]) => value !== EVERYTHING[name])
    if (item) kept.push(["item", item.place])
    if (item !== null) history.replaceState(null, "", `#${new URLSearchParams(kept)}`)
  }, [key, item])
  useEffect(() => {
    const place = new URLSearchParams(initial).get("item")
    if (/^\d{1,18}$/.test(place ?? "")) openPlace(query, Number(place))
  }, [])
  const load = useCallback((start, size) => source.rows(query, start, size), [key])
  // Replies may come in another order than they were asked for: only the last counts.
  const show = async (place, number = ++asked.current) => {
    const found = await source.item(place)
    if (number !== asked.current) return
    setItem(found)
    // Where there is no room beside the list, the item is below it.
    if (matchMedia("(max-width: 900px)").matches) setTimeout(() => heading.current?.scrollIntoView({ block: "nearest" }))
  }
  const select = async (index) => {
    const number = ++asked.current
    setSelected(index)
    const row = (await source.rows(query, index, 1)).rows[0]
    if (row && number === asked.current) await show(row.place, number)
  }
  const close = () => { asked.current++; setItem(undefined) }
  const openPlace = async (within, place) => {
    const [, at] = await Promise.all([show(place), source.position(within, place)])
    setSelected(at)
  }
  const openItem = (place, kind) => {
    const wanted = { ...EVERYTHING, only: "failed", category: kind.category, kind: kind.kind }
    setQuery(wanted)
    setTab("Items")
    return openPlace(wanted, place)
  }
  const filter = (only) => { setTab("Items"); change({ ...EVERYTHING, only }) }

  const tabs = overview?.about.compared_with ? ["Items", "Errors", "Charts", "Run", "Compare"] : ["Items", "Errors", "Charts", "Run"]
  useEffect(() => {
    const press = (event) => {
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)
      if (event.key === "Escape" && !help.current?.open) {
        if (item !== undefined) close()
        else if (query.search) change({ search: "" })
        if (typing) event.target.blur()
      }
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return
      if (event.key === "/") {
        event.preventDefault()
        // At once if it is there: who types on must not lose a letter.
        if (search.current) search.current.focus()
        else { setTab("Items"); setTimeout(() => search.current?.focus()) }
      }
      else if (event.key === "?") help.current.showModal()
      else if (event.key === "t") turnTheme()
      else if (tabs[Number(event.key) - 1]) setTab(tabs[Number(event.key) - 1])
    }
    addEventListener("keydown", press)
    return () => removeEventListener("keydown", press)
  })

  if (!overview) return html`<p class="empty" role="status">${problem ?? "Reading…"}</p>`
  const { about, figures } = overview
  const hint = source.isLive
    ? "This prompt is not in the store, which by default has only those of failed items. To show it, give the input of the run: batch-llm view STORE --prompts FILE"
    : "This page does not have the prompt: it is not in the store, or the run had keep_prompts=False."
  return html`
    <header class="top"><h1>${about.name}</h1>
      ${about.state && html`<span class=${`run ${about.state}`}>${about.state}</span>`}
      ${!overview.is_complete && html`<span class="dim" role="status">reading: ${about.expected ? percent(figures.items, about.expected) : count(figures.items)}</span>`}
      <span class="dim when">${moment(about.created_at)}${about.compared_with ? `, compared with ${about.compared_with}` : ""}</span>
      <button class="plain" onClick=${() => help.current.showModal()} aria-label="Keyboard shortcuts">?</button>
      <button class="plain" onClick=${turnTheme} aria-label=${theme === "dark" ? "Light theme" : "Dark theme"}>${theme === "dark" ? "☀" : "☾"}</button></header>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${about.left_out > 0 && html`<p class="problem">${count(about.left_out)} further items are not in this page; the figures include them.</p>`}
    <${Figures} figures=${figures} about=${about} isComplete=${overview.is_complete} onFilter=${filter} />
    <nav class="tabs" role="tablist" aria-label="Views">${tabs.map((name) => html`<button role="tab" id=${`tab-${name}`} aria-selected=${tab === name} aria-controls="view" tabindex=${tab === name ? 0 : -1}
      onClick=${() => setTab(name)} onKeyDown=${(event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
        if (step) { const next = tabs[(tabs.indexOf(name) + step + tabs.length) % tabs.length]; setTab(next); document.getElementById(`tab-${next}`).focus() }
      }}>${name}${name === "Errors" && figures.failed > 0 ? html` <span class="dim">${count(figures.failed)}</span>` : ""}</button>`)}</nav>
    <div id="view" role="tabpanel" aria-labelledby=${`tab-${tab}`}>
    ${tab === "Items" && html`<${Toolbar} query=${query} change=${change} categories=${overview.categories} runs=${overview.runs} total=${total} search=${search} />
      <div class=${`work ${item !== undefined ? "open" : ""}`}>
        <div class="listed"><div class="row head" aria-hidden="true"><i></i><span>id</span><span class="prompt">prompt</span><span class="answer">answer</span><span></span><span class="number time">time</span><span class="number cost">cost</span></div>
          <${VirtualList} label="Items" of=${key} version=${overview.version} load=${load} row=${listed} describe=${describe} selected=${selected}
            onSelect=${select} onOpen=${() => heading.current?.focus()} onTotal=${setTotal} empty="No item matches." /></div>
        ${item !== undefined && html`<div class="details"><${ItemView} item=${item} hint=${hint} onClose=${close} heading=${heading} /></div>`}
      </div>`}
    ${tab === "Errors" && html`<${Errors} errors=${overview.errors} onItem=${openItem} onKind=${(kind) => { setTab("Items"); change({ ...EVERYTHING, only: "failed", category: kind.category, kind: kind.kind }) }} />`}
    ${tab === "Charts" && html`<${Charts} charts=${overview.charts} runs=${about.runs} theme=${theme} />`}
    ${tab === "Run" && html`<${Run} overview=${overview} />`}
    ${tab === "Compare" && html`<${Compare} hint=${hint} />`}</div>
    <dialog ref=${help} aria-label="Keyboard shortcuts"><h2>Keyboard</h2><table><tbody>${HELP.map(([keys, what]) => html`<tr><th scope="row"><kbd>${keys}</kbd></th><td>${what}</td></tr>`)}</tbody></table>
      <form method="dialog"><button>Close</button></form></dialog>`
}

const root = document.getElementById("app")
root.replaceChildren()
render(html`<${App} />`, root)
