-- Reads a page of a channel's history: what comes after a position, or else the newest. Changes nothing.
--
-- KEYS: the history, and the partition's hash. ARGV: the position ("" for the newest), events at most, bytes at most,
-- and the bytes that an event costs beside its text. Answers with whether more would follow (1 or 0), the epoch whose
-- history this is ("" for none), then the entries, oldest first.

local CHUNK = 16

local history = KEYS[1]
local after, events_max, bytes_max, overhead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch = redis.call('HGET', KEYS[2], 'e') or ''
local length = redis.call('LLEN', history)

-- Counted from the end, where readers are: a list is walked from the nearer one.
local function entry(index)
  return redis.call('LINDEX', history, index - length)
end

local function is_after(index)
  return (tonumber(string.match(entry(index), '^%d+ (%d+) ')) or 0) > after
end

-- The first entry after the position: in leaps from the end, then by halves.
local function first_after()
  local low, begin, leap = 0, length, 1
  while begin > 0 do
    local probe = math.max(length - leap, 0)
    if not is_after(probe) then
      low = probe + 1
      break
    end
    begin, leap = probe, leap * 2
  end
  while low < begin do
    local middle = math.floor((low + begin) / 2)
    if is_after(middle) then
      begin = middle
    else
      low = middle + 1
    end
  end
  return begin
end

local page, bytes, more = {}, 0, 0

-- Whether it went onto the page.
local function take(text)
  if #page > 0 and (#page >= events_max or bytes >= bytes_max) then
    more = 1
    return false
  end
  local body = string.match(text, '^%d+ %d+ %d+[=~] %d+ %d+ %d+ ()') or 1
  bytes = bytes + overhead + #text - body + 1
  page[#page + 1] = text
  return true
end

if after then
  local at = first_after()
  while at < length and more == 0 do
    for _, text in ipairs(redis.call('LRANGE', history, at - length, math.min(at + CHUNK, length) - 1 - length)) do
      if not take(text) then
        break
      end
    end
    at = at + CHUNK
  end
  table.insert(page, 1, epoch)
  table.insert(page, 1, tostring(more))
  return page
end

local at = length
while at > 0 and more == 0 do
  local chunk = redis.call('LRANGE', history, math.max(at - CHUNK, 0) - length, at - 1 - length)
  for i = #chunk, 1, -1 do
    if not take(chunk[i]) then
      break
    end
  end
  at = at - CHUNK
end
local answer = { tostring(more), epoch }
for i = #page, 1, -1 do
  answer[#answer + 1] = page[i]
end
return answer
