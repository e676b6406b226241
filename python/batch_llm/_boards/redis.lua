-- The table of shared limits: WARNING: must do what src/sharing/table.rs does.
-- KEYS[1]: of the scope. ARGV: "renew" or "leave", the holder, its demand as JSON, the time in milliseconds or "".

local LEASE_MS, GROWTH, LEAST, TOGETHER = 3000, 1.5, 0.1, 3.0
local EVEN_WITHIN, WHILE_OTHERS_CATCH_UP, SLOWEST, NOTHING = 3.0, 0.1, 1 / 60, 1e-3

local what, holder, now = ARGV[1], ARGV[2], tonumber(ARGV[4])
if not now then
  local time = redis.call("TIME")
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local kept = redis.call("GET", KEYS[1])
local group = kept and cjson.decode(kept) or { leases = {} }

local mine
local others = {}
for _, lease in ipairs(group.leases) do
  if lease.holder == holder then
    mine = lease.until_ms > now and lease or nil
  elseif lease.until_ms > now then
    table.insert(others, lease)
  end
end

local function keep(leases)
  if #leases == 0 then
    redis.call("DEL", KEYS[1])
  else
    group.leases = leases
    redis.call("SET", KEYS[1], cjson.encode(group), "PX", LEASE_MS)
  end
end

if what == "leave" then
  keep(others)
  return ""
end

-- What somebody has had until now.
local function had_by(lease)
  return lease.had + lease.part * math.min(math.max(now - lease.at, 0), LEASE_MS) / 1000
end

local function average(leases, wanting_only)
  local sum, count = 0, 0
  for _, lease in ipairs(leases) do
    if not (wanting_only and lease.demand) then
      sum, count = sum + had_by(lease), count + 1
    end
  end
  return count > 0 and sum / count or nil
end

local function had_on_average(leases)
  return average(leases, true) or average(leases, false)
end

-- Max-min fair parts by demand.
local function parts_of(leases)
  local wanted, order, parts = {}, {}, {}
  for i, lease in ipairs(leases) do
    wanted[i] = lease.demand and math.max(lease.demand * GROWTH, LEAST / #leases) or math.huge
    order[i] = i
  end
  table.sort(order, function(a, b)
    if wanted[a] == wanted[b] then return a < b end
    return wanted[a] < wanted[b]
  end)
  local left, count = 1, #leases
  for _, i in ipairs(order) do
    parts[i] = math.min(wanted[i], left / count)
    left, count = left - parts[i], count - 1
  end
  for i in ipairs(leases) do
    parts[i] = parts[i] + left / #leases
  end
  return parts
end

-- The part of the last, with a bias for those who have had less than others.
local function fair(leases)
  local parts, usual = parts_of(leases), had_on_average(leases)
  local whole, sum = 0, 0
  for i, lease in ipairs(leases) do
    if not lease.demand then whole = whole + parts[i] end
  end
  for i, lease in ipairs(leases) do
    if not lease.demand then
      local part = parts[i]
      local biased = part + (usual - had_by(lease)) / EVEN_WITHIN
      parts[i] = math.min(math.max(biased, part * WHILE_OTHERS_CATCH_UP), math.max(whole, part))
      sum = sum + parts[i]
    end
  end
  local last = #leases
  return (sum > 0 and not leases[last].demand) and parts[last] * whole / sum or parts[last]
end

local function positive(value)
  return type(value) == "number" and value > 0 and value < math.huge and value or nil
end

local given = cjson.decode(ARGV[3])
local demand = given.part and (positive(given.part) or 0) or nil
local held = math.min(positive(given.held) or 0, 1)
local refused = positive(given.refused) or 0

if not mine and #others == 0 then
  group = { leases = {}, restored_until = held > 0 and now + LEASE_MS or 0 }
end
local is_restoring = now < group.restored_until

local had = had_on_average(others) or 0
if mine and not demand then
  had = had_by(mine)
elseif not mine then
  local all = 0
  for _, lease in ipairs(others) do all = all + had_by(lease) end
  if all <= TOGETHER then had = 0 end
end

local lease = { holder = holder, until_ms = now + LEASE_MS, demand = demand, part = 0, had = had, at = now, unheard = 0 }
lease.pace = positive(given.pace) or (mine and mine.pace)

local taken = 0
for _, other in ipairs(others) do taken = taken + other.part end
local leases = {}
for i, other in ipairs(others) do leases[i] = other end
table.insert(leases, lease)

local wanted
if is_restoring then
  wanted = mine and mine.part or held
else
  wanted = fair(leases)
end
lease.part = math.max(math.min(wanted, 1 - taken), 0)

if group.pace then
  if lease.pace and mine and mine.pace then
    group.pace = math.max(group.pace + lease.pace - mine.pace, SLOWEST)
  end
elseif not is_restoring then
  local sum = 0
  for _, other in ipairs(leases) do
    sum = sum and other.pace and sum + other.pace or nil
  end
  group.pace = sum
end
local told = group.pace and lease.part >= NOTHING and group.pace * lease.part or nil
lease.pace = told or lease.pace

for _, other in ipairs(others) do other.unheard = other.unheard + refused end
keep(leases)

local is_restored = not mine and held > 0 and is_restoring
return cjson.encode({
  part = lease.part,
  is_shared = #others > 0,
  is_new = not mine and not is_restored,
  pace = told,
  refused = mine and mine.unheard or 0,
})
