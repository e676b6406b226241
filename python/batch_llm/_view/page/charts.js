// Charts over time, drawn by uPlot.
const SERIES = ["--blue", "--orange", "--green", "--violet", "--yellow"]

// The colour behind a name, in the theme of the moment: a canvas does not know names.
const resolved = (name) => {
  const probe = document.createElement("span")
  probe.style.color = `var(${name})`
  document.body.append(probe)
  const found = getComputedStyle(probe).color
  probe.remove()
  return found
}

// For the keyboard and for screen readers: a slider over the times, which says the values at each.
function Reader({ title, times, lines, format, until, plot }) {
  const [at, go] = useState(0)
  const place = Math.min(at, times.length - 1)
  const values = lines.map((line) => `${line.name} ${line.values[place] == null ? "–" : format(line.values[place])}`)
  const when = until ? `${duration(times[place])} to ${duration(until(place))}` : duration(times[place])
  const show = (index) => {
    go(index)
    plot.current?.setCursor({ left: plot.current.valToPos(times[index], "x"), top: 0 }, true, true)
  }
  return html`<input type="range" class="reader" min="0" max=${times.length - 1} value=${place} aria-label=${`Read: ${title}`}
    aria-valuetext=${`${when}: ${values.join(", ")}`} onInput=${(event) => show(Number(event.currentTarget.value))} onFocus=${() => show(place)} />`
}

function Chart({ title, note, summary, times, lines, stacked, until, format, theme }) {
  const place = useRef(null), drawing = useRef(null)
  useEffect(() => {
    const [ink, grid] = [resolved("--dim"), resolved("--line")]
    const colours = lines.map((line, at) => resolved(line.colour ?? SERIES[at % SERIES.length]))
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font: "12px system-ui, sans-serif" }
    let drawn = lines.map((line, at) => ({ ...line, at, shown: line.values, colour: colours[at] }))
    // What holds for an interval is drawn from its beginning to its end.
    const paths = until ? uPlot.paths.stepped({ align: 1 }) : undefined
    const ends = (values) => (until ? [...values, values.at(-1)] : values)
    if (stacked) {
      const sum = times.map(() => 0)
      for (const line of drawn) line.shown = line.values.map((value, at) => (sum[at] += value))
      drawn.reverse() // from the highest to the lowest, each over what is behind it
    }
    const value = (at) => (plot, raw, series, index) => (index == null ? "–" : format(ends(lines[at].values)[index] ?? 0))
    const options = {
      width: place.current.clientWidth, height: 190, padding: [10, 14, 0, 0],
      cursor: { sync: { key: "run" }, points: { size: 6 }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: { range: (plot, low, high) => [0, stacked ? 1 : high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, values: (plot, values) => values.map(duration), space: 70 },
        { ...axis, values: (plot, values) => values.map(format), size: 64 },
      ],
      series: [
        { label: "time", value: (plot, raw) => (raw == null ? "–" : duration(raw)) },
        ...drawn.map((line) => ({
          label: line.name, stroke: line.colour, width: stacked ? 0 : 1.75, points: { show: false }, spanGaps: true, paths,
          value: value(line.at), fill: stacked ? line.colour : undefined,
        })),
      ],
    }
    const shown = until ? [...times, until(times.length - 1)] : times
    const plot = new uPlot(options, [shown, ...drawn.map((line) => ends(line.shown))], place.current)
    drawing.current = plot
    const observer = new ResizeObserver(() => plot.setSize({ width: place.current.clientWidth, height: 190 }))
    observer.observe(place.current)
    return () => { observer.disconnect(); plot.destroy() }
  }, [times, lines, theme])
  const highest = summary ?? lines.map((line) => `${line.name} at most ${format(Math.max(0, ...line.values.map((value) => value ?? 0)))}`)
  return html`<figure class="chart"><figcaption><h3>${title}</h3>${note && html`<p class="dim">${note}</p>`}</figcaption>
    <div ref=${place} role="img" aria-label=${`${title}: ${highest.join(", ")}`}></div>
    <${Reader} title=${title} times=${times} lines=${lines} format=${format} until=${until} plot=${drawing} /></figure>`
}

function Charts({ charts, runs, theme }) {
  const [chosen, choose] = useState(null)
  const chart = charts.find((one) => one.run === chosen) ?? charts[0]
  const drawn = useMemo(() => chart && curves(chart), [chart])
  if (!chart) return html`<p class="empty">No attempts yet: there is nothing to draw.</p>`
  return html`<div class="panel">
    ${charts.length > 1 && html`<p><label>Run <select value=${chart.run} onChange=${(event) => choose(Number(event.target.value))}>
      ${charts.map((one) => html`<option value=${one.run}>${one.run} of ${runs}: ${count(one.attempts)} attempts in ${duration(Math.max(one.end, one.bound?.end ?? 0))}</option>`)}</select></label></p>`}
    <div class="charts">${drawn.map((one) => html`<${Chart} key=${one.title} ...${one} theme=${theme} />`)}</div>
    <p class="dim">Times are since the start of the run; drag to zoom, double-click to reset. With the keyboard: Tab to a chart, then ← and →.</p></div>`
}

// What the engine says: how long each reason kept attempts from starting, in each interval.
function bounds({ bound }) {
  if (!bound) return []
  const { interval, end, seconds } = bound
  const names = Object.keys(BOUNDS).filter((name) => name in seconds)
  for (const name of Object.keys(seconds)) if (!names.includes(name)) names.push(name) // of a later version
  const times = seconds[names[0]].map((_, at) => at * interval).filter((at) => at === 0 || at < end)
  const until = (at) => Math.min((at + 1) * interval, Math.max(end, interval * at))
  const whole = names.reduce((sum, name) => sum + seconds[name].reduce((one, other) => one + other, 0), 0)
  const lines = names.map((name) => ({
    name: BOUNDS[name] ?? words(name), colour: name in BOUNDS ? `--bound-${name.replace(":", "-")}` : "--dim", of: seconds[name].reduce((one, other) => one + other, 0),
    values: times.map((time, at) => Math.min(seconds[name][at] / (until(at) - time || 1), 1)),
  })).filter((line) => line.of >= whole / 200 || line.values.some((value) => value >= 0.1)) // others cannot be seen
  const summary = [...lines].sort((one, other) => other.of - one.of).map((line) => `${line.name} ${Math.round((line.of / whole) * 100)} %`)
  const title = "What limited the run", note = "Why no further attempt started, as a share of the time"
  return [{ title, note, stacked: true, format: share, times, until, lines, summary }]
}

// In a store that does not have that, what attempts waited for.
// Behind one attempt that waits for a limit all others wait for a worker: what they wait for first counts, once.
function limits(chart) {
  const left = chart.done.map(() => 1)
  const shares = ["cooldown", "quota", "concurrency", "worker", "backoff"].map((name) => [name, chart[name].map((value, at) => {
    const share = Math.min(value, left[at])
    left[at] -= share
    return share
  })])
  return shares.filter(([, values]) => values.some((value) => value > 0))
}

const share = (value) => `${Math.round(value * 100)} %`

function curves(chart) {
  const times = chart.done.map((_, at) => (at + 0.5) * chart.width)
  const rate = (value) => `${short(value)}/s`
  const line = (name, values, colour) => ({ name, values, colour })
  return [
    { title: "Results per second", lines: [line("succeeded", chart.done, "--green"), line("failed", chart.failed, "--red")], format: rate },
    { title: "Requests in flight", lines: [line("in flight", chart.running)], format: short },
    { title: "Latency", lines: [line("p50", chart.p50, "--green"), line("p95", chart.p95, "--orange"), line("p99", chart.p99, "--red")], format: duration },
    { title: "Tokens per second", lines: [line("input", chart.input), line("output", chart.output)], format: rate },
    { title: "Cost so far", lines: [line("dollars", chart.spent)], format: money },
    ...(chart.bound ? bounds(chart) : [{
      title: "What attempts waited for", stacked: true, format: share, note: "What they waited for first, as a share of the time",
      lines: limits(chart).map(([name, values]) => line(WAITS[name], values, `--wait-${name}`)),
    }]),
  ].filter((one) => one.lines.some(({ values }) => values.some((value) => value > 0))).map((one) => ({ times, ...one }))
}
