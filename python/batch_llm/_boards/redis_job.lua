-- A job that several processes work on: WARNING: must do what src/sharing/jobs.rs does.
-- KEYS[1]: of the job. ARGV: "report" or "leave", the holder, its report as JSON, the time in milliseconds or "".

local LEASE_MS, FORGOTTEN_MS, ROUNDING = 10000, 24 * 3600000, 1e-9

local what, holder, now = ARGV[1], ARGV[2], tonumber(ARGV[4])
if not now then
  local time = redis.call("TIME")
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local kept = redis.call("GET", KEYS[1])
local job = kept and cjson.decode(kept) or nil

local function keep()
  redis.call("SET", KEYS[1], cjson.encode(job), "PX", FORGOTTEN_MS)
end

if what == "leave" then
  local part = job and job.parts[holder]
  if part then
    part.allowance = part.spent
    keep()
  end
  return ""
end

local function positive(value)
  return type(value) == "number" and value > 0 and value < math.huge and value or 0
end

-- `now` of tests does not pass by itself.
local is_alive = false
for _, part in pairs(job and job.parts or {}) do
  is_alive = is_alive or part.at + FORGOTTEN_MS > now
end
if not is_alive then
  job = { parts = {}, began = now }
end

local report = cjson.decode(ARGV[3])
if report.max_cost then
  job.max_cost = math.min(job.max_cost or math.huge, positive(report.max_cost))
end
job.stop = job.stop or report.stop
if report.timeout then
  job["until"] = math.min(job["until"] or math.huge, job.began + math.floor(positive(report.timeout) * 1000))
end
local left = job["until"] and math.max(job["until"] - now, 0) / 1000
if left and left <= 0 then
  job.stop = job.stop or "batch_deadline_exceeded"
end

local spent = positive(report.spent)
local claimed = spent + positive(report.reserved)
local mine = { counters = report.counters or {}, spent = spent, allowance = claimed, at = now }
local allowance
local is_final = false
if job.max_cost then
  local taken, comes_back = 0, 0
  for name, part in pairs(job.parts) do
    if name ~= holder then
      taken = taken + part.allowance
      if part.at + LEASE_MS > now then comes_back = comes_back + part.allowance - part.spent end
    end
  end
  local free = math.max(job.max_cost - taken - claimed, 0)
  local enough, least = job.max_cost * ROUNDING, positive(report.least)
  local more = least > free + enough and 0 or math.min(positive(report.wanted), free)
  local needed = math.max(least, enough)
  mine.allowance = mine.allowance + more
  allowance = mine.allowance
  is_final = comes_back + free - more < needed and more < needed
end
job.parts[holder] = mine
keep()

local totals = {}
for _, part in pairs(job.parts) do
  for name, count in pairs(part.counters) do
    totals[name] = (totals[name] or 0) + count
  end
end
return cjson.encode({ allowance = allowance, is_final = is_final, stop = job.stop, left = left, totals = totals })
