// A list of any length, of which only what is seen is in the page.
const ROW = 36
// Browsers draw no taller elements than some 16 million pixels; longer lists are scrolled in larger steps.
const TALLEST = 8e6
const PAGE = 100

function VirtualList({ label, of, version, load, row, describe, selected, onSelect, onOpen, onTotal, empty }) {
  const box = useRef(null)
  const known = useRef({ of: null, version: null, pages: new Map(), asked: new Set() })
  const [total, setTotal] = useState(null)
  const [, redraw] = useState(0)
  const [view, setView] = useState({ top: 0, height: 600 })

  if (known.current.of !== of) known.current = { of, version, pages: new Map(), asked: new Set() }
  else if (known.current.version !== version) known.current = { ...known.current, version, asked: new Set() }
  const mine = known.current

  const ask = (page) => {
    if (mine.asked.has(page)) return
    mine.asked.add(page)
    load(page * PAGE, PAGE).then(
      (found) => {
        if (known.current.of !== mine.of) return
        known.current.pages.set(page, found.rows)
        setTotal(found.total)
        onTotal?.(found.total)
        redraw((times) => times + 1)
      },
      () => mine.asked.delete(page),
    )
  }

  const length = total ?? 0
  const full = length * ROW
  const tall = Math.min(full, TALLEST)
  const seen = Math.ceil(view.height / ROW) + 1
  const first = full <= TALLEST
    ? Math.floor(view.top / ROW)
    : Math.round((view.top / Math.max(tall - view.height, 1)) * Math.max(length - seen + 2, 0))
  const from = Math.max(first - 6, 0)
  const to = Math.min(first + seen + 6, length)
  const offset = (index) => (full <= TALLEST ? index * ROW : view.top + (index - first) * ROW)

  useEffect(() => {
    for (let page = Math.floor(from / PAGE); page <= Math.floor(Math.max(to - 1, 0) / PAGE); page++) ask(page)
  })
  useEffect(() => {
    setTotal(null)
    if (box.current) box.current.scrollTop = 0
    setView((before) => ({ ...before, top: 0 }))
  }, [of])
  useLayoutEffect(() => {
    const measure = () => setView((before) => ({ ...before, height: box.current.clientHeight }))
    const observer = new ResizeObserver(measure)
    observer.observe(box.current)
    measure()
    return () => observer.disconnect()
  }, [])
  useEffect(() => {
    const element = box.current
    if (selected == null || !length) return
    if (full <= TALLEST) {
      if (selected * ROW < element.scrollTop) element.scrollTop = selected * ROW
      else if ((selected + 1) * ROW > element.scrollTop + view.height) element.scrollTop = (selected + 1) * ROW - view.height
    } else if (selected < first || selected > first + seen - 3) {
      element.scrollTop = (Math.max(selected - 2, 0) / Math.max(length - seen + 2, 1)) * (tall - view.height)
    }
  }, [selected, length === 0])

  const press = (event) => {
    const page = Math.max(seen - 2, 1)
    const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key in steps) {
      event.preventDefault()
      const begin = selected ?? (steps[event.key] > 0 ? first - 1 : first)
      if (length) onSelect(Math.min(Math.max(begin + steps[event.key], 0), length - 1))
    } else if (event.key === "Enter" && selected != null) {
      event.preventDefault()
      onOpen?.()
    }
  }

  const shown = []
  for (let index = from; index < to; index++) {
    const data = mine.pages.get(Math.floor(index / PAGE))?.[index % PAGE]
    shown.push(html`<div
      key=${index} id=${`${label}-${index}`} role="option" aria-selected=${index === selected} aria-setsize=${length}
      aria-posinset=${index + 1} aria-label=${data ? describe(data) : "loading"}
      class=${`row ${index === selected ? "selected" : ""}`} style=${{ top: `${offset(index)}px`, height: `${ROW}px` }}
      onClick=${() => onSelect(index)}>${data ? row(data) : html`<span class="dim">…</span>`}</div>`)
  }
  return html`<div
    class="list" role="listbox" aria-label=${label} tabindex="0" ref=${box} onKeyDown=${press}
    aria-activedescendant=${selected != null && selected >= from && selected < to ? `${label}-${selected}` : undefined}
    onScroll=${(event) => { const top = event.currentTarget.scrollTop; setView((before) => ({ ...before, top })) }}>
    <div class="tall" role="presentation" style=${{ height: `${tall}px` }}>${shown}</div>
    ${total === 0 && html`<p class="empty">${empty}</p>`}
  </div>`
}
