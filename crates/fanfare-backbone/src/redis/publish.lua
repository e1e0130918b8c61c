-- Gives drafts their places, in order: appends each to its channel's history and sends it to its subscribers.
--
-- A script that fails half-way keeps what it wrote. So the first writes of each draft are those that may be refused
-- (out of memory, a foreign key under our name), then comes the sending, which rights may forbid, and only then what
-- makes it count. A command inside a script costs about a microsecond: whatever can be is read and written once, for
-- all drafts together.
--
-- KEYS: ensure's, and for each draft its history and its idempotency key (its history once more, where it has none).
-- ARGV after ensure's: forget age and idempotency window (µs), the beginning of the Pub/Sub names; for each draft its
-- channel, the digest of its body ("" where it has no idempotency key), how many events its history keeps and, after a
-- space, for how long (µs; nothing until they are pushed out: then the channel isn't forgotten), and its entry from the
-- name on. Answers with the time, then a line for each draft.

local drafts = (#KEYS - 3) / 2
local forget_age, window, names = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local now = clock()
local remembered_until = number(math.floor((now + window) / 1000))
local answer = { number(now) }

-- Where the partition stands, and channels' last positions as text, both as the drafts so far leave them.
local state, lasts
-- What the sorted set of last positions is still to be told: what is placed (position and channel in turn), what is
-- forgotten.
local placed, forgotten, is_placed = {}, {}, {}
-- Channels that nobody published to for long (each followed by its position), and how far they are swept.
local old, swept
local keeping

local function begin()
  local refused
  state, refused = ensure(now)
  if refused then
    return refused
  end
  local channels = {}
  for i = 1, drafts do
    channels[i] = ARGV[4 * i + 3]
  end
  -- At most some hundred: unpack fails somewhere between 7,000 and 20,000 values.
  local scores = redis.call('ZMSCORE', KEYS[2], unpack(channels))
  lasts = {}
  for i = 1, drafts do
    lasts[channels[i]] = scores[i] and number(tonumber(scores[i]))
  end
  -- Each draft sweeps two, and what is placed meanwhile isn't old any more.
  old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. number(now - forget_age), 'WITHSCORES', 'LIMIT', 0, 3 * drafts)
  swept = 0
  keeping = keeps_any()
end

-- The next two channels that are forgotten: the floor rises instead. What is never forgotten leaves its place among the
-- others, too, so that nothing waits behind it. Gives how far they reach, the floor, and whether the channel itself is
-- one of them.
local function sweep(channel)
  local reach, floor, itself, left = swept, state.floor, false, 2
  while left > 0 and old[reach + 1] do
    local name = old[reach + 1]
    if not is_placed[name] then
      left, floor, itself = left - 1, math.max(floor, tonumber(old[reach + 2])), itself or name == channel
    end
    reach = reach + 2
  end
  return reach, floor, itself
end

-- Where a channel stands that is known only because it is never forgotten.
local function kept(channel)
  local last = keeping and redis.call('ZSCORE', KEYS[3], channel)
  return last and number(tonumber(last))
end

-- What an idempotency key published before.
local function repeated(value, body)
  local point, kept = string.match(value, '^(%w+ %d+) (%x+)$')
  return kept == body and ('R ' .. point) or 'M'
end

-- Gives the length of the history, or else why there is nothing of it.
local function append_and_send(history, channel, size, entry)
  local length = 0
  if size > 0 then
    length = redis.pcall('RPUSH', history, entry)
    if failed(length) then
      return nil, length.err
    end
  end
  local sent = redis.pcall('PUBLISH', names .. channel, '1 ' .. state.epoch .. ' ' .. entry)
  if failed(sent) then
    if size > 0 then
      redis.call('LTRIM', history, 0, -2)
    end
    return nil, sent.err
  end
  return length
end

local function trim(history, length, pos, keep)
  if length > keep.size then
    redis.call('LTRIM', history, -keep.size, -1)
  end
  if not keep.age then
    redis.call('PERSIST', history) -- It may have been set otherwise before.
    return
  end
  -- The oldest is looked at only now and then, by one draft in four.
  if pos % 4 == 0 and length > 1 then
    for _ = 1, 16 do
      local oldest = redis.call('LINDEX', history, 0)
      local place = oldest and tonumber(string.match(oldest, '^%d+ (%d+) '))
      if not place or place + keep.age >= now then
        break
      end
      redis.call('LPOP', history)
    end
  end
  redis.call('PEXPIREAT', history, keep.ends)
end

local function publish(history, remembered, channel, body, keep, tail)
  local reach, floor, itself = sweep(channel)
  local last = not itself and lasts[channel]
  if not last then
    last = kept(channel)
  end
  local pos = math.max(state.last + 1, now)
  local place = number(pos)
  local point = state.epoch .. ' ' .. place

  if body ~= '' then
    local set = redis.pcall('SET', remembered, point .. ' ' .. body, 'NX', 'PXAT', remembered_until)
    if not set then
      return repeated(redis.call('GET', remembered), body)
    end
    if failed(set) then
      return 'E ' .. set.err
    end
  end
  local entry = '1 ' .. place .. ' ' .. (last and last .. '=' or number(floor) .. '~') .. tail
  local length, refused = append_and_send(history, channel, keep.size, entry)
  if refused then
    if body ~= '' then
      redis.call('UNLINK', remembered)
    end
    return 'E ' .. refused
  end

  for i = swept + 1, reach, 2 do
    if not is_placed[old[i]] then
      forgotten[#forgotten + 1] = old[i]
      lasts[old[i]] = nil
    end
  end
  state.last, state.floor, swept = pos, floor, reach
  lasts[channel], is_placed[channel] = place, true
  placed[#placed + 1] = place
  placed[#placed + 1] = channel
  if not keep.age then
    redis.call('ZADD', KEYS[3], place, channel)
    keeping = true
  elseif keeping then
    redis.call('ZREM', KEYS[3], channel)
  end
  if keep.size > 0 then
    trim(history, length, pos, keep)
  end
  return 'N ' .. point
end

-- What is kept of a channel, read once for all that have the same.
local keeps = setmetatable({}, { __index = function(keeps, text)
  local size, age = string.match(text, '^(%d+) (%d*)$')
  local keep = { size = tonumber(size), age = tonumber(age) }
  keep.ends = keep.age and number(math.floor((now + keep.age) / 1000))
  keeps[text] = keep
  return keep
end })

-- Gives an error to answer with, if not even an epoch can be had.
local function publish_all()
  for i = 1, drafts do
    local history, remembered = KEYS[2 * i + 2], KEYS[2 * i + 3]
    local channel, body, keep, tail = ARGV[4 * i + 3], ARGV[4 * i + 4], keeps[ARGV[4 * i + 5]], ARGV[4 * i + 6]
    -- A repetition alone changes nothing, not even the epoch.
    local value = not state and body ~= '' and redis.call('GET', remembered)
    if value then
      answer[i + 1] = repeated(value, body)
    else
      local refused = not state and begin()
      if refused then
        return refused
      end
      answer[i + 1] = publish(history, remembered, channel, body, keep, tail)
    end
  end
end

-- Where all of it stands is written once for all drafts, also if one of them fails in the middle.
local ran, refused = pcall(publish_all)
if #placed > 0 then
  redis.call('HSET', KEYS[1], 'l', number(state.last), 'f', number(state.floor))
  if #forgotten > 0 then
    redis.call('ZREM', KEYS[2], unpack(forgotten))
  end
  redis.call('ZADD', KEYS[2], unpack(placed))
end
if not ran then
  error(refused)
end
return refused or answer
