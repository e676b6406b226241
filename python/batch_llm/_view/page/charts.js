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

function Chart({ title, note, times, lines, stacked, format, theme }) {
  const place = useRef(null)
  useEffect(() => {
    const [ink, grid] = [resolved("--dim"), resolved("--line")]
    const colours = lines.map((line, at) => resolved(line.colour ?? SERIES[at % SERIES.length]))
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font: "12px system-ui, sans-serif" }
    let drawn = lines.map((line, at) => ({ ...line, at, shown: line.values, colour: colours[at] }))
    if (stacked) {
      const sum = times.map(() => 0)
      for (const line of drawn) line.shown = line.values.map((value, at) => (sum[at] += value))
      drawn.reverse() // from the highest to the lowest, each over what is behind it
    }
    const value = (at) => (plot, raw, series, index) => (index == null ? "–" : format(lines[at].values[index] ?? 0))
    const options = {
      width: place.current.clientWidth, height: 190, padding: [10, 8, 0, 0],
      cursor: { sync: { key: "run" }, points: { size: 6 }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: { range: (plot, low, high) => [0, stacked ? 1 : high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, values: (plot, values) => values.map(duration), space: 70 },
        { ...axis, values: (plot, values) => values.map(format), size: 64 },
      ],
      series: [
        { label: "time", value: (plot, raw) => (raw == null ? "–" : duration(raw)) },
        ...drawn.map((line) => ({
          label: line.name, stroke: line.colour, width: stacked ? 0 : 1.75, points: { show: false }, spanGaps: true,
          value: value(line.at), fill: stacked ? line.colour : undefined,
        })),
      ],
    }
    const plot = new uPlot(options, [times, ...drawn.map((line) => line.shown)], place.current)
    const observer = new ResizeObserver(() => plot.setSize({ width: place.current.clientWidth, height: 190 }))
    observer.observe(place.current)
    return () => { observer.disconnect(); plot.destroy() }
  }, [times, lines, theme])
  const highest = lines.map((line) => `${line.name} at most ${format(Math.max(0, ...line.values.map((value) => value ?? 0)))}`)
  return html`<figure class="chart"><figcaption><h3>${title}</h3>${note && html`<p class="dim">${note}</p>`}</figcaption>
    <div ref=${place} role="img" aria-label=${`${title}: ${highest.join(", ")}`}></div></figure>`
}

function Charts({ charts, runs, theme }) {
  const [chosen, choose] = useState(null)
  const chart = charts.find((one) => one.run === chosen) ?? charts[0]
  const drawn = useMemo(() => chart && curves(chart), [chart])
  if (!chart) return html`<p class="empty">No attempts yet: there is nothing to draw.</p>`
  return html`<div class="panel">
    ${charts.length > 1 && html`<p><label>Run <select value=${chart.run} onChange=${(event) => choose(Number(event.target.value))}>
      ${charts.map((one) => html`<option value=${one.run}>${one.run} of ${runs}: ${count(one.attempts)} attempts in ${duration(one.end)}</option>`)}</select></label></p>`}
    <div class="charts">${drawn.map((one) => html`<${Chart} key=${one.title} ...${one} theme=${theme} />`)}</div>
    <p class="dim">Times are since the start of the run; drag to zoom, double-click to reset.</p></div>`
}

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
    {
      title: "What limited the run", stacked: true, format: (value) => `${Math.round(value * 100)}%`,
      note: "What attempts waited for first, as a share of the time",
      lines: limits(chart).map(([name, values]) => line(WAITS[name], values, `--wait-${name}`)),
    },
  ].filter((one) => one.lines.some(({ values }) => values.some((value) => value > 0))).map((one) => ({ ...one, times }))
}
