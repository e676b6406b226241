// What the other files share: the library, formats of numbers, and where the data comes from. All files become one script.
const { h, html, render, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } = htmPreact

const count = (value) => (value ?? 0).toLocaleString("en-US")
const money = (value) =>
  value == null ? "unknown" : value === 0 ? "$0" : `$${value >= 1 ? value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 }) : value.toPrecision(3)}`
const percent = (part, whole) => (whole ? `${Math.floor((part / whole) * 1000) / 10}%` : "")
const digits = (value) => String(Number(value.toPrecision(3)))

function duration(value) {
  if (value == null) return ""
  if (value === 0) return "0 s"
  if (value < 0.001) return `${digits(value * 1e6)} µs`
  if (value < 1) return `${digits(value * 1000)} ms`
  if (value < 120) return `${digits(value)} s`
  const minutes = Math.floor(value / 60)
  return minutes < 60 ? `${minutes} min ${Math.round(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

const short = (value) => {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return digits(value / size) + unit
  return digits(value)
}
const moment = (seconds) => (seconds == null ? "" : new Date(seconds * 1000).toLocaleString())
const words = (name) => name.replaceAll("_", " ")

const STATES = ["failed", "succeeded", "not sent"]
const WAITS = { backoff: "backoff", cooldown: "cooldown", worker: "free worker", quota: "quota", concurrency: "concurrency limit" }
// In the order in which they are stacked.
const BOUNDS = {
  workers: "all workers busy", concurrency: "concurrency limit found", pace: "request rate found", "quota:requests": "limit on requests",
  "quota:tokens": "limit on tokens", "quota:input_tokens": "limit on input tokens", "quota:output_tokens": "limit on output tokens",
  cooldown: "cooldown after a rate limit", outage: "outage of the provider", slow_start: "slow start", backoff: "backoff after errors",
  other_runs: "other runs", budget: "budget reserved", estimates: "token estimates", prompt_cache: "prompt cache being written",
  tools: "tools of conversations", store: "writing results", consumer: "results not consumed", source: "waiting for input",
  batches: "batches at the provider", last_items: "last items in flight", paused: "paused",
}
const FILTERS = {
  all: "All", failed: "Failed", retried: "Retried", slow: "Slow", expensive: "Expensive", truncated: "Truncated",
  reused: "Reused", not_sent: "Not sent",
}
const ORDERS = {
  place: "completion", id: "id", seconds: "time", waited: "wait", cost: "cost", attempts: "attempts",
  input: "input tokens", output: "output tokens",
}
const EVERYTHING = { search: "", only: "all", category: "", kind: "", run: "", order: "place", descending: "" }

// Rows come as lists, to be short.
const named = (columns, row) => Object.fromEntries(columns.map((name, at) => [name, row[at]]))
const unpacked = (page) => ({ ...page, rows: page.rows.map((row) => named(page.columns, row)) })

// Asks the command that serves the page.
class Served {
  isLive = true

  async ask(name, parameters = {}) {
    const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null)
    const reply = await fetch(`api/${name}?${new URLSearchParams(given)}`, { cache: "no-store" })
    if (!reply.ok) throw new Error((await reply.text()) || reply.statusText)
    return reply.json()
  }

  overview = () => this.ask("overview")
  rows = async (query, start, size) => unpacked(await this.ask("rows", { ...query, start, count: size }))
  item = (place, side) => this.ask("item", { place, side })
  position = async (query, place) => (await this.ask("position", { ...query, place })).position
  comparison = () => this.ask("comparison")
  pairs = async (outcome, start, size) => unpacked(await this.ask("pairs", { outcome, start, count: size }))
}

// Has everything in the page itself.
class Embedded {
  isLive = false

  constructor(data) {
    this.data = data
    this.all = unpacked(data.rows).rows
    this.details = new Map(data.items.map((item) => [item.place, item]))
    this.found = null
  }

  select(query) {
    const key = JSON.stringify(query)
    if (this.found?.key !== key) this.found = { key, rows: this.sorted(query, this.all.filter(this.test(query))) }
    return this.found.rows
  }

  test({ search, only, category, kind, run }) {
    const { slow, expensive } = this.data.overview.figures
    const tests = {
      all: () => true, succeeded: (row) => row.state === 1, failed: (row) => row.state === 0,
      not_sent: (row) => row.state === 2, retried: (row) => row.retries > 0,
      slow: (row) => row.seconds != null && row.seconds >= slow,
      expensive: (row) => row.cost > 0 && row.cost >= expensive,
      truncated: (row) => row.truncated, reused: (row) => row.reused,
    }
    const parts = [...search.toLowerCase().matchAll(/"([^"]*)"|([^\s"]+)/g)].map((found) => found[1] ?? found[2])
    return (row) => tests[only](row) && (!category || row.category === category) && (!kind || row.kind === kind) && (!run || row.run === Number(run)) &&
      (!parts.length || this.has(row, parts))
  }

  has(row, parts) {
    row.text ??= this.textOf(row).toLowerCase()
    return parts.every((part) => row.text.includes(part))
  }

  textOf(row) {
    const item = this.details.get(row.place)
    return `${row.item_id} ${item?.prompt?.text ?? row.prompt ?? ""} ${item?.answer.text ?? row.answer}`
  }

  sorted({ order, descending }, rows) {
    const name = order === "id" ? "item_id" : order
    const sign = descending ? -1 : 1
    const compare = (one, two) => {
      const [a, b] = [one[name], two[name]]
      if (a == null || b == null) return (a == null) - (b == null) || one.place - two.place
      return (a < b ? -sign : a > b ? sign : 0) || one.place - two.place
    }
    return order === "place" && !descending ? rows : rows.sort(compare)
  }

  overview = async () => this.data.overview
  rows = async (query, start, size) => {
    const found = this.select(query)
    return { total: found.length, start, rows: found.slice(start, start + size) }
  }
  item = async (place) => this.details.get(place) ?? null
  position = async (query, place) => {
    const at = this.select(query).findIndex((row) => row.place === place)
    return at < 0 ? null : at
  }
}

const embedded = document.getElementById("data")
const source = embedded ? new Embedded(JSON.parse(embedded.textContent)) : new Served()
